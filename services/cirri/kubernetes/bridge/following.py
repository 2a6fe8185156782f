"""The requests that a :class:`Reflector` asks for, over real HTTP: everything else it decides."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import aiohttp
import msgspec
from msgspec import Raw, Struct

from cirri.kubernetes.bridge.reflector import Ask, Delta, Item, Place, Reflector, number

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

SILENCE_S = 90.0
"""A watch that says nothing for so long, not even a bookmark, is asked for again."""
CONNECT_S = 10.0
LONGEST_LINE = 16 * 2**20
"""Bytes of one event; an object has at most 1.5 MiB in the store of an API server, more as JSON."""


class Named(Struct, rename="camel", omit_defaults=True):
    """The metadata that every object has, as far as a reflector needs them."""

    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Sketch(Struct):
    metadata: Named = msgspec.field(default_factory=Named)


class _ListMeta(Struct, rename={"resource_version": "resourceVersion", "token": "continue"}):
    resource_version: str = ""
    token: str = ""


class _List(Struct):
    metadata: _ListMeta
    items: list[Raw] | None = None


class _Event(Struct):
    type: str
    object: Raw


class _Details(Struct, rename="camel"):
    retry_after_seconds: int = 0


class _Status(Struct):
    code: int = 500
    message: str = ""
    details: _Details | None = None


class Read(Protocol[T_co]):
    """Decodes what is kept of one object.  Raises: msgspec.MsgspecError."""

    def __call__(self, raw: bytes, /) -> T_co:
        """What is kept of *raw*."""


class Api(Protocol):
    """What is used of a connection to an API server."""

    def get(
        self, path: str, parameters: Mapping[str, str], timeout: aiohttp.ClientTimeout
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Ask; the answer is read within the block."""


class Source(NamedTuple):
    """What is followed."""

    path: str
    """``/api/v1/pods``"""
    selector: Mapping[str, str] = {}
    """``fieldSelector`` or ``labelSelector``."""


class Health(Struct):
    """How one kind's following is, for metrics and readiness."""

    heard_s: float = float("-inf")
    """When the server last said anything, by the loop's clock."""
    watching: bool = False
    error: str = ""
    """Why there is no answer now; empty while there is."""
    events: int = 0
    requests: int = 0
    unreadable: int = 0


class Following(Generic[T]):
    """Follows *source* for ever; *take* gets the changes, in order, and may take its time.

    *trusted* is asked before each list: whether this server is the cluster that it was; while it is not,
    nothing is read.
    """

    def __init__(
        self,
        api: Api,
        source: Source,
        read: Read[T],
        take: Callable[[Sequence[Delta[T]], bool], Awaitable[None]],
        *,
        known: Sequence[Place] = (),
        trusted: Callable[[], Awaitable[bool]] | None = None,
        silence_s: float = SILENCE_S,
        page: int = 500,
    ) -> None:
        self._api, self._source, self._read, self._take = api, source, read, take
        self._trusted = trusted
        self._silence_s = silence_s
        self.reflector: Reflector[T] = Reflector(known, chance=random.random, page=page)
        self.health = Health()
        self.synced = asyncio.Event()
        """Set once a whole list was taken."""

    async def run(self) -> None:
        """List, watch, and begin again, until it is cancelled."""
        while True:
            ask = self.reflector.ask()
            if ask.pause_s:
                await asyncio.sleep(ask.pause_s)
            self.health.requests += 1
            try:
                await (self._watch(ask) if ask.watch else self._list(ask))
            except (
                aiohttp.ClientError,
                TimeoutError,
                OSError,
                msgspec.MsgspecError,
                UnicodeDecodeError,
            ) as error:
                self.health.error = f"{type(error).__name__}: {error}"
                self.reflector.failed()
            finally:
                self.health.watching = False

    async def _list(self, ask: Ask) -> None:
        if self._trusted is not None and not await self._trusted():
            self.health.error = "not the cluster that it was"
            self.reflector.failed()
            return
        limit = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=self._silence_s)
        async with self._api.get(
            self._source.path, {**self._source.selector, **ask.parameters}, limit
        ) as answer:
            body = await answer.read()
            if answer.status != 200:
                self._refused(answer, body)
                return
        self._heard()
        found = msgspec.json.decode(body, type=_List)
        items = [self._item(raw) for raw in found.items or ()]
        before = self.reflector.lists
        deltas = self.reflector.page(items, found.metadata.resource_version, found.metadata.token)
        whole = self.reflector.lists > before
        await self._take(deltas, whole)
        if whole:
            self.synced.set()

    async def _watch(self, ask: Ask) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        limit = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=self._silence_s)
        try:
            async with self._api.get(
                self._source.path, {**self._source.selector, **ask.parameters}, limit
            ) as answer:
                if answer.status != 200:
                    self._refused(answer, await answer.read())
                    return
                self.health.watching = True
                self._heard()
                async for lines in _lines(answer):
                    if not await self._events(lines):
                        return
        except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, TimeoutError) as error:
            self.health.error = f"{type(error).__name__}: {error}"
        self.reflector.ended(loop.time() - began)

    async def _events(self, lines: Sequence[bytes]) -> bool:
        """Take *lines* of a watch; False if it is over."""
        self._heard()
        deltas: list[Delta[T]] = []
        over = False
        try:
            for line in lines:
                event = msgspec.json.decode(line, type=_Event)
                self.health.events += 1
                if event.type == "ERROR":
                    status = msgspec.json.decode(event.object, type=_Status)
                    self.health.error = status.message
                    after_s = status.details.retry_after_seconds if status.details else 0
                    self.reflector.refused(status.code, after_s)
                    over = True
                    break
                deltas += self._event(event)
        except msgspec.MsgspecError as error:  # cut in the middle, or garbage: as if it had ended there
            self.health.error = f"a watch says what cannot be read: {error}"
            self.reflector.failed()
            over = True
        if deltas:
            await self._take(deltas, False)
        return not over

    def _event(self, event: _Event) -> list[Delta[T]]:
        if event.type == "BOOKMARK":
            self.reflector.bookmark(_sketch(event.object).metadata.resource_version)
            return []
        if event.type == "DELETED":
            return self.reflector.deleted(_bare(_sketch(event.object).metadata))
        if event.type in ("ADDED", "MODIFIED"):
            return self.reflector.changed(self._item(event.object))
        return []

    def _item(self, raw: Raw) -> Item[T]:
        bare: Item[T] = _bare(_sketch(raw).metadata)
        try:
            return bare._replace(value=self._read(bytes(raw)))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.health.unreadable += 1
            return bare

    def _refused(self, answer: aiohttp.ClientResponse, body: bytes) -> None:
        try:
            status = msgspec.json.decode(body, type=_Status)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            status = _Status(message=f"{answer.status} {answer.reason}")
        self.health.error = status.message or f"{answer.status} {answer.reason}"
        after = answer.headers.get("Retry-After", "")
        after_s = float(after) if after.isdecimal() else 0.0  # an API server never gives a date
        if status.details is not None:
            after_s = max(after_s, status.details.retry_after_seconds)
        self.reflector.refused(answer.status, after_s)

    def _heard(self) -> None:
        self.health.heard_s = asyncio.get_running_loop().time()
        self.health.error = ""


def _sketch(raw: Raw) -> _Sketch:
    return msgspec.json.decode(raw, type=_Sketch)


def _bare(metadata: Named) -> Item[Any]:
    return Item(Place(metadata.namespace, metadata.name), number(metadata.resource_version), None)


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[list[bytes]]:
    """The lines of *answer* that are whole, as they come; what follows the last one is dropped."""
    rest = b""
    async for chunk in answer.content.iter_any():
        *lines, rest = (rest + chunk if rest else chunk).split(b"\n")
        if len(rest) > LONGEST_LINE:
            raise aiohttp.ClientPayloadError(f"one event has more than {LONGEST_LINE} bytes")
        if lines := [line for line in lines if line]:
            yield lines
