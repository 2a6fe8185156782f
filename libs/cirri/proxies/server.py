"""The datapath service's end of the socket."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from cirri.errors import CirriError
from cirri.proxies.changes import changes
from cirri.proxies.model import Ask, FromServer, NodeProxies, Number, Refused, Serving
from cirri.proxies.wire import Garbled, from_client, pack, receive
from cirri.sockets import listen


class _Connection:
    """What one proxy is still to be sent."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.answers: deque[FromServer] = deque()
        self.news = asyncio.Event()
        self.sent: NodeProxies | None = None


class ProxiesServer:
    """Tells every proxy that connects the newest :class:`NodeProxies`, and answers what it asks."""

    def __init__(
        self,
        socket: Path,
        *,
        number: Callable[[tuple[str, ...]], Awaitable[int]],
        serving: Callable[[Serving], None],
    ) -> None:
        """*number* returns when policy about the number is in force; *serving* is told each report."""
        self.socket = socket
        self.latest: NodeProxies | None = None
        self._number, self._serving = number, serving
        self._connections: set[_Connection] = set()
        self._packed: tuple[NodeProxies | None, NodeProxies, bytes] | None = None
        """What was sent last, from which state to which: proxies are mostly sent the same."""

    def publish(self, latest: NodeProxies) -> None:
        """Send *latest* to everybody; who is slow gets only the newest."""
        self.latest = latest
        for each in self._connections:
            each.news.set()

    async def start(self) -> asyncio.Server:
        """Listen, see :func:`cirri.sockets.listen`."""
        return await listen(self.socket, self._accepted)

    def close(self) -> None:
        """Hang up on everybody; those that connect later are answered if somebody listens."""
        for each in self._connections:
            each.writer.close()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(writer)
        connection.news.set()
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(self._send(connection))
                try:
                    while True:
                        match await receive(reader, from_client):
                            case Ask(keys=keys):
                                tasks.create_task(self._answer(keys, connection))
                            case Serving() as report:
                                self._serving(report)
                except (asyncio.IncompleteReadError, ConnectionError, Garbled):
                    sending.cancel()  # it has gone, or must begin again
        finally:
            self._connections.discard(connection)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _send(self, connection: _Connection) -> None:
        writer = connection.writer
        with suppress(ConnectionError):
            while True:
                await connection.news.wait()
                connection.news.clear()
                if self.latest is not None and self.latest is not connection.sent:
                    writer.write(self._news(connection.sent, self.latest))
                    connection.sent = self.latest
                while connection.answers:
                    writer.write(pack(connection.answers.popleft()))
                await writer.drain()

    def _news(self, before: NodeProxies | None, latest: NodeProxies) -> bytes:
        """What makes *latest* of what a proxy was sent *before*."""
        known = self._packed
        if known is None or known[0] is not before or known[1] is not latest:
            message = latest if before is None else changes(before, latest)
            known = self._packed = (before, latest, pack(message))
        return known[2]

    async def _answer(self, keys: tuple[str, ...], connection: _Connection) -> None:
        try:
            answer: FromServer = Number(keys=keys, number=await self._number(keys))
        except CirriError as error:
            answer = Refused(keys=keys, why=str(error))
        connection.answers.append(answer)
        connection.news.set()
