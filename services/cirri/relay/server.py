"""``observer.Observer`` for the cluster: asks nodes, reads what is stored, tells both as one."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import grpc

from cirri.errors import CirriError
from cirri.hubble.facts import Place, Test
from cirri.hubble.filters import BadFilter
from cirri.hubble.messages import (
    GetFlowsRequest,
    GetFlowsResponse,
    GetNamespacesRequest,
    GetNamespacesResponse,
    GetNodesResponse,
    NodeState,
    ServerStatusRequest,
    ServerStatusResponse,
)
from cirri.hubble.server import refuse
from cirri.hubble.wanted import EVER, BadRequest, Wanted, flows_test, mask_of, masked
from cirri.relay.merge import Recent, Window, in_order, moment
from cirri.relay.pool import Node, Pool
from cirri.relay.stored import Read, forward, newest

ANSWER_S = 5.0
"""How long a node may take for its next answer, before it counts as one that failed."""
LOOK_S = 1.0
"""While a client follows: between looks for nodes that came back."""
OVERLAP_NS = 2 * 10**9
"""How far back a node is asked again whose connection was lost; what was told is not told again."""
NAMED = 10
"""Nodes that are away and named in a status; all are counted."""


class Relay:
    """Answers for the cluster.  *read*: the stream of flows."""

    def __init__(
        self, pool: Pool, read: Read, place: Place, version: str, *, now: Callable[[], int] = time.time_ns
    ) -> None:
        self.pool, self._read, self._place, self.now = pool, read, place, now
        self._version = version
        self.window_s = 1.0
        self.told = 0
        """Flows told so far."""
        self.following = 0
        """Clients that follow."""

    def methods(self) -> Mapping[str, Any]:
        """By the service's names."""
        return {
            "GetFlows": self._flows,
            "GetAgentEvents": self._per_node,
            "GetDebugEvents": self._per_node,
            "GetNodes": self._nodes,
            "GetNamespaces": self._namespaces,
            "ServerStatus": self._status,
        }

    # flows --------------------------------------------------------------------------------------------

    async def _flows(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            wanted, test, mask = Wanted.of(request), flows_test(request, self._place), mask_of(request)
        except (BadFilter, BadRequest) as error:
            await refuse(context, error)
            return
        there, away = await self.pool.sorted()
        if there:
            yield self.event(NodeState.NODE_CONNECTED, [node.name for node in there])
        for reason in sorted({node.why for node in away}):
            names = [node.name for node in away if node.why == reason]
            yield self.event(NodeState.NODE_UNAVAILABLE, names, reason)
        begin, recent = self.now(), Recent()
        if not wanted.from_now:
            async for response in self._past(request, wanted, test, there, recent):
                yield self._cut(response, mask)
        if wanted.follow:
            self.following += 1
            live = _Live(self, request, {node.name for node in away})
            try:
                async for response in live.responses(begin, wanted):
                    if recent.first(response):
                        yield self._cut(response, mask)
            finally:
                live.close()
                self.following -= 1

    async def _past(
        self, request: Any, wanted: Wanted, test: Test, nodes: list[Node], recent: Recent
    ) -> AsyncIterator[Any]:
        """What nodes hold, and with bounds of time what is stored: both may tell the same flow."""
        asked = GetFlowsRequest()
        asked.CopyFrom(request)
        asked.follow = False
        asked.ClearField("field_mask")
        faults: list[Any] = []
        streams = [self._node_flows(node, asked, faults) for node in nodes]
        if request.HasField("since") or request.HasField("until"):
            streams.append(self._stored(wanted, test, faults))
        left, last = wanted.number or EVER, deque[Any](maxlen=wanted.number or None)
        async for response in in_order(streams):
            while faults:
                yield faults.pop()
            if not recent.first(response):
                continue
            if wanted.newest:
                last.append(response)
                continue
            yield response
            left -= 1
            if not left:
                break
        for response in [*faults, *last]:
            yield response

    async def _node_flows(self, node: Node, request: Any, faults: list[Any]) -> AsyncIterator[Any]:
        """What *node* answers; if it fails, that is put among *faults*."""
        call = node.observer.GetFlows(request)
        try:
            while True:
                async with asyncio.timeout(ANSWER_S):
                    response = await call.read()
                if response is grpc.aio.EOF:
                    return
                yield response
        except TimeoutError:
            faults.append(self.event(NodeState.NODE_ERROR, [node.name], f"no answer for {ANSWER_S:g} s"))
        except grpc.aio.AioRpcError as error:
            faults.append(self.event(NodeState.NODE_ERROR, [node.name], why(error)))
        finally:
            call.cancel()

    async def _stored(self, wanted: Wanted, test: Test, faults: list[Any]) -> AsyncIterator[Any]:
        """What the stream holds."""
        try:
            if wanted.newest:
                for response in await newest(self._read, wanted, test, self._place, wanted.number):
                    yield response
            else:
                async for response in forward(self._read, wanted, test, self._place):
                    yield response
        except CirriError as error:
            faults.append(self.event(NodeState.NODE_ERROR, [], f"what is stored cannot be read: {error}"))

    def event(self, state: int, names: Iterable[str], message: str = "") -> Any:
        """A response that says how nodes are."""
        response = GetFlowsResponse()
        response.time.FromNanoseconds(self.now())
        response.node_status.state_change = state
        response.node_status.node_names.extend(names)
        response.node_status.message = message
        return response

    def _cut(self, response: Any, mask: Any) -> Any:
        if response.WhichOneof("response_types") == "flow":
            self.told += 1
            if mask is not None:
                response.flow.CopyFrom(masked(response.flow, mask))
        return response

    # the rest -----------------------------------------------------------------------------------------

    async def _per_node(self, _: Any, context: Any) -> AsyncIterator[Any]:
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED, "events of nodes are told by each node, not by the relay"
        )
        yield  # the method is a stream

    async def _ask(self, method: str, request: Any) -> tuple[dict[str, Any], list[str]]:
        """(node -> answer, nodes that gave none)."""
        there, away = await self.pool.sorted()

        async def one(node: Node) -> Any:
            with suppress(grpc.aio.AioRpcError):
                return await getattr(node.observer, method)(request, timeout=ANSWER_S)

        answers = await asyncio.gather(*map(one, there))
        found = {node.name: answer for node, answer in zip(there, answers, strict=True) if answer is not None}
        return found, [node.name for node in (*away, *there) if node.name not in found]

    async def _status(self, _: Any, __: Any) -> Any:
        answers, away = await self._ask("ServerStatus", ServerStatusRequest())
        status = ServerStatusResponse(version=self._version, unavailable_nodes=away[:NAMED])
        for answer in answers.values():
            status.num_flows += answer.num_flows
            status.max_flows += answer.max_flows
            status.seen_flows += answer.seen_flows
            status.flows_rate += answer.flows_rate
            status.uptime_ns = max(status.uptime_ns, answer.uptime_ns)
        status.num_connected_nodes.value = len(answers)
        status.num_unavailable_nodes.value = len(away)
        return status

    async def _nodes(self, _: Any, __: Any) -> Any:
        there, _away = await self.pool.sorted()
        answers, _missing = await self._ask("ServerStatus", ServerStatusRequest())
        connected = {node.name for node in there}
        response = GetNodesResponse()
        for name, node in sorted(self.pool.nodes.items()):
            told = response.nodes.add(name=name, address=node.peer.address)
            told.tls.enabled = bool(node.peer.server_name)
            told.tls.server_name = node.peer.server_name
            if (answer := answers.get(name)) is None:
                failed = name in connected
                told.state = NodeState.NODE_ERROR if failed else NodeState.NODE_UNAVAILABLE
                continue
            told.state = NodeState.NODE_CONNECTED
            told.version, told.uptime_ns = answer.version, answer.uptime_ns
            told.num_flows, told.max_flows, told.seen_flows = (
                answer.num_flows,
                answer.max_flows,
                answer.seen_flows,
            )
        return response

    async def _namespaces(self, _: Any, __: Any) -> Any:
        answers, _away = await self._ask("GetNamespaces", GetNamespacesRequest())
        found = {(one.cluster, one.namespace) for answer in answers.values() for one in answer.namespaces}
        response = GetNamespacesResponse()
        for cluster, namespace in sorted(found):
            response.namespaces.add(cluster=cluster, namespace=namespace)
        return response


class _Live:
    """What nodes see from now on, for one client; nodes that come back go on where they stopped."""

    def __init__(self, relay: Relay, request: Any, away: set[str]) -> None:
        self._relay, self._away = relay, away
        self._task: asyncio.Future[None] | None = None
        self._request = GetFlowsRequest(whitelist=request.whitelist, blacklist=request.blacklist, follow=True)
        if request.HasField("until"):
            self._request.until.CopyFrom(request.until)
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
        request = GetFlowsRequest()
        request.CopyFrom(self._request)
        request.since.FromNanoseconds(max(begin, self._seen.get(node.name, 0) - OVERLAP_NS))
        call = node.observer.GetFlows(request)
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
