"""A proxy's end of the socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from cirri.proxies.changes import changed
from cirri.proxies.model import Ask, FromServer, NodeChanges, NodeProxies, Number, Refused, Serving
from cirri.proxies.wire import AskRefused, Garbled, from_server, pack, receive

RETRY_S = 0.2
KEEP_S = 0.25
"""How often what was said last is written to the file, at most: it matters at the next start alone."""


class ProxiesClient:
    """What the datapath service says, kept in a file so that a proxy starts without it.

    :meth:`run` must run; it reconnects for ever.
    """

    def __init__(self, socket: Path, cache_file: Path) -> None:
        """*cache_file* holds what was said last; one that cannot be read is as if there was none."""
        self.socket, self.cache_file = socket, cache_file
        self.latest: NodeProxies | None = None
        self.error = ""
        """Why there is no connection."""
        self._writer: asyncio.StreamWriter | None = None
        self._asked: dict[tuple[str, ...], asyncio.Future[int]] = {}
        self._serving: Serving | None = None
        self._moved = asyncio.Condition()
        self._unkept = asyncio.Event()
        """What is in the file is not what was said last."""
        with suppress(OSError, msgspec.DecodeError):
            self.latest = msgspec.msgpack.decode(cache_file.read_bytes(), type=NodeProxies)

    @property
    def connected(self) -> bool:
        """Whether the datapath service hears us now."""
        return self._writer is not None

    async def changes(self) -> AsyncIterator[NodeProxies]:
        """What is known (at first perhaps from the file), then each change; who is slow gets the newest."""
        given: NodeProxies | None = None
        while True:
            async with self._moved:
                while self.latest is given:
                    await self._moved.wait()
                given = self.latest
            assert given is not None
            yield given

    async def ask(self, keys: Iterable[str]) -> int:
        """The number of the set of name selectors *keys*, once policy about it is in the kernel.

        Waits while there is no connection.  Raises: AskRefused.
        """
        known = tuple(sorted(set(keys)))
        if (future := self._asked.get(known)) is None:
            future = self._asked[known] = asyncio.get_running_loop().create_future()
            self._send(Ask(keys=known))
        return await asyncio.shield(future)

    def serving(self, ports: Iterable[int], failed: Mapping[int, str] | None = None) -> None:
        """Report which ports really listen, and why others do not; said again at each connection."""
        self._serving = Serving(ports=tuple(sorted(ports)), failed=dict(failed or {}))
        self._send(self._serving)

    async def run(self) -> None:
        """Stay connected until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep())
                await self._stay_connected()
        finally:
            if self._unkept.is_set():
                self._write()

    async def _stay_connected(self) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self.socket))
            except OSError as error:
                self.error = str(error)
                await asyncio.sleep(RETRY_S)
                continue
            self._writer, self.error = writer, ""
            try:
                if self._serving is not None:
                    self._send(self._serving)
                for keys in self._asked:
                    self._send(Ask(keys=keys))
                while True:
                    await self._take(await receive(reader, from_server))
            except (asyncio.IncompleteReadError, ConnectionError, Garbled) as error:
                self.error = str(error)
            finally:
                self._writer = None
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()
            await asyncio.sleep(RETRY_S)

    async def _keep(self) -> None:
        while True:
            await self._unkept.wait()
            await asyncio.sleep(KEEP_S)
            self._unkept.clear()
            await asyncio.to_thread(self._write)  # a disk may take its time

    def _write(self) -> None:
        draft = self.cache_file.with_suffix(".draft")
        with suppress(OSError):  # a full disk is no reason to end
            draft.write_bytes(msgspec.msgpack.encode(self.latest))
            draft.rename(self.cache_file)

    def _send(self, message: Ask | Serving) -> None:
        if self._writer is not None:
            self._writer.write(pack(message))  # a few bytes: no need to wait for them

    async def _take(self, message: FromServer) -> None:
        match message:
            case NodeProxies():
                await self._adopt(message)
            case NodeChanges():
                if self.latest is None or self.latest.revision != message.since:
                    raise Garbled(f"changes since revision {message.since}, which was not said")
                try:
                    latest = changed(self.latest, message)
                except KeyError as error:
                    raise Garbled(f"nobody said what listener {error} is") from error
                await self._adopt(latest)
            case Number(keys=keys, number=number):
                if (future := self._asked.pop(keys, None)) and not future.done():
                    future.set_result(number)
            case Refused(keys=keys, why=why):
                if (future := self._asked.pop(keys, None)) and not future.done():
                    future.set_exception(AskRefused(keys, why))

    async def _adopt(self, latest: NodeProxies) -> None:
        async with self._moved:
            self.latest = latest
            self._moved.notify_all()
        self._unkept.set()
