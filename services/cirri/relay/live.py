"""What nodes tell from now on, for one client of the relay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol

import grpc.aio

from cirri.hubble.messages import NodeState
from cirri.hubble.wanted import EVER, Wanted
from cirri.relay.merge import Window, moment
from cirri.relay.pool import Node, Pool

LOOK_S = 1.0
"""Between looks for nodes that came back."""
OVERLAP_NS = 2 * 10**9
"""How far back a node is asked again whose connection was lost; what was told is not told again."""


class Following(Protocol):
    """Whom it is for."""

    pool: Pool
    window_s: float
    now: Callable[[], int]

    def event(self, state: int, names: Iterable[str], message: str = "") -> Any:
        """A response that says how nodes are."""


class Live:
    """What nodes tell from now on; those that come back go on where they stopped."""

    def __init__(self, relay: Following, method: str, request: Any, away: set[str]) -> None:
        """*request* is sent to each node's *method*, with the time from which on; *away*: nodes that are."""
        self._relay, self._away = relay, away
        self._task: asyncio.Future[None] | None = None
        self._method, self._request = method, request
        self._streams: dict[str, asyncio.Future[None]] = {}
        self._failed: set[str] = set()
        """Nodes that refused the request, and would again."""
        self._seen: dict[str, int] = {}
        self._window = Window(int(relay.window_s * 10**9))
        self._events: list[Any] = []
        self._news = asyncio.Event()

    async def responses(self, begin: int, wanted: Wanted) -> AsyncIterator[Any]:
        """In order of time, within the window."""
        relay = self._relay
        self._task = asyncio.ensure_future(self._watch(begin))
        end = EVER if wanted.until_ns == EVER else wanted.until_ns + int(relay.window_s * 10**9) + 10**9
        while (now := relay.now()) < end:
            events, self._events = self._events, []
            for response in (*events, *self._window.due(now)):
                yield response
            if self._task.done():
                self._task.result()
            wait = self._window.wait_s(relay.now())
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S if wait is None else min(wait, LOOK_S)):
                    await self._news.wait()

    def close(self) -> None:
        """Hear no more."""
        for task in (self._task, *self._streams.values()):
            if task is not None:
                task.cancel()

    async def _watch(self, begin: int) -> None:
        """Nodes that come, go, and come back."""
        while True:
            nodes = dict(self._relay.pool.nodes)
            came = []
            for name, node in nodes.items():
                stream = self._streams.get(name)
                if node.available and name not in self._failed and (stream is None or stream.done()):
                    self._streams[name] = asyncio.ensure_future(self._pump(node, begin))
                    if stream is not None or name in self._away:
                        came.append(name)
                    self._away.discard(name)
            gone = [name for name in self._streams if name not in nodes]
            for name in gone:
                self._streams.pop(name).cancel()
            for state, names in ((NodeState.NODE_CONNECTED, came), (NodeState.NODE_GONE, gone)):
                if names:
                    self._tell(self._relay.event(state, sorted(names)))
            await asyncio.sleep(LOOK_S / 4)

    async def _pump(self, node: Node, begin: int) -> None:
        """What *node* sees, since *begin* or since it was last heard."""
        request = type(self._request)()
        request.CopyFrom(self._request)
        request.since.FromNanoseconds(max(begin, self._seen.get(node.name, 0) - OVERLAP_NS))
        call = getattr(node.observer, self._method)(request)
        try:
            async for response in call:
                self._seen[node.name] = max(self._seen.get(node.name, 0), moment(response))
                self._window.put(response)
                self._news.set()
        except grpc.aio.AioRpcError as error:
            unavailable = error.code() == grpc.StatusCode.UNAVAILABLE
            state = NodeState.NODE_UNAVAILABLE if unavailable else NodeState.NODE_ERROR
            if not unavailable:
                self._failed.add(node.name)
            self._tell(self._relay.event(state, [node.name], why(error)))
            await asyncio.sleep(LOOK_S)
        finally:
            call.cancel()

    def _tell(self, event: Any) -> None:
        self._events.append(event)
        self._news.set()


def why(error: Any) -> str:
    """What a client should know of a failed call."""
    return f"{error.code().name.lower().replace('_', ' ')}: {error.details()}"
