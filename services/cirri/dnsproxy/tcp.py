"""Questions over TCP: each connection of a pod has one to its server, under the pod's address.

Questions may follow each other without waiting, and answers may overtake each other (RFC 7766).
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, cast

from cirri.dnsproxy.desk import Asked, Desk
from cirri.dnsproxy.facts import Pod
from cirri.dnsproxy.message import AXFR, HEADER, IXFR, Answer, Malformed, folded
from cirri.dnsproxy.rules import REFUSED
from cirri.dnsproxy.sockets import packed_address, speaking_as_pod, spelled, written

PENDING = 128
"""Questions of one connection that wait; who asks more is not read until answers came."""
PER_POD, MOST = 256, 8192
"""Connections."""
BACKLOG = 1024
CONNECT_S, IDLE_S, GIVE_UP_S = 5.0, 20.0, 10.0

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Streams:
    """Everything over TCP of one instance."""

    def __init__(self, loop: asyncio.AbstractEventLoop, desk: Desk, spawn: Spawn) -> None:
        self.loop, self.desk, self.spawn = loop, desk, spawn
        self.clients: set[Client] = set()
        self.crowd: Counter[int] = Counter()
        """How many of them each pod has."""
        self._servers: list[asyncio.Server] = []

    async def listen(self, shared: list[socket.socket]) -> None:
        """Accept connections on *shared* sockets."""
        for one in shared:
            self._servers.append(
                await self.loop.create_server(lambda: Client(self), sock=one, backlog=BACKLOG)
            )

    def stop(self) -> None:
        """Accept no more, and end those that wait for nothing."""
        for one in self._servers:
            one.close()
        for client in list(self.clients):
            client.stop()

    def look(self) -> None:
        """Now and then: end connections that nobody uses."""
        now = time.monotonic()
        for client in list(self.clients):
            client.look(now)


class Client(asyncio.Protocol):
    """A pod's connection."""

    def __init__(self, streams: Streams) -> None:
        self._streams, self.desk = streams, streams.desk
        self._transport: asyncio.Transport | None = None
        self._upstream: asyncio.Transport | None = None
        self._connecting = self._stopping = self._paused = False
        self._buffer = bytearray()
        self._unsent: list[bytes] = []
        self._pending: dict[bytes, Asked] = {}
        self._again: set[bytes] = set()
        """Of those, the ones that were asked twice."""
        self._transfers: dict[bytes, float] = {}
        """Of those, the zones of which some has come, and when last: where they end only the pod looks."""
        self.pod: Pod | None = None
        self._client = self._server = b""
        self._used = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Whose it is, and where it wanted to go."""
        self._transport = cast(asyncio.Transport, transport)
        self._client = written(transport.get_extra_info("peername"))
        self._server = written(transport.get_extra_info("sockname"))
        self.pod = self.desk.pods.get(packed_address(self._client))
        of_pod = self._streams.crowd[self.pod.id] if self.pod else 0
        if self.pod is None or of_pod >= PER_POD or len(self._streams.clients) >= MOST:
            self.desk.counts.strangers += self.pod is None
            self.desk.counts.crowded += self.pod is not None
            self._transport.abort()
            return
        self._streams.clients.add(self)
        self._streams.crowd[self.pod.id] += 1

    def connection_lost(self, error: Exception | None) -> None:
        """The pod has ended it, or we have."""
        if self in self._streams.clients and self.pod is not None:
            self._streams.clients.discard(self)
            self._streams.crowd[self.pod.id] -= 1
        if self._upstream is not None:
            self._upstream.abort()

    def data_received(self, data: bytes) -> None:
        """Some of a question, or several."""
        self._used = time.monotonic()
        for message in frames(self._buffer, data):
            self._take(message)
        if len(self._pending) >= PENDING and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The pod asks no more; answers still go to it."""
        self._stopping = True
        return bool(self._pending)

    def stop(self) -> None:
        """End when nothing waits."""
        self._stopping = True
        if not self._pending and self._transport is not None:
            self._transport.close()

    def look(self, now: float) -> None:
        """Forget what nobody answers; end what nobody uses."""
        for identifier, asked in list(self._pending.items()):
            if now - self._transfers.get(identifier, asked.began) > GIVE_UP_S:
                del self._pending[identifier]
                if self._transfers.pop(identifier, None) is None:
                    self.desk.counts.timeouts += 1
                    self.desk.watch.failed(asked, "no answer")
        if (
            (self._stopping or now - self._used > IDLE_S)
            and not self._pending
            and self._transport is not None
        ):
            self._transport.close()

    # questions --------------------------------------------------------------------------------------

    def _take(self, message: bytes) -> None:
        desk, pod = self.desk, self.pod
        if pod is None:
            return
        desk.counts.queries += 1
        try:
            end, rule, judge = desk.decide(pod, socket.IPPROTO_TCP, self._server, message)
        except Malformed:
            self._tell(desk.objection(message))
            return
        question = folded(message, end)
        asked = Asked(pod, self._client, self._server, judge.server, question, rule, self._used, message)
        if rule == REFUSED:
            self._tell(desk.refuse(asked, end))
            return
        desk.watch.passed(asked)
        identifier = os.urandom(2)
        while identifier in self._pending:
            identifier = os.urandom(2)
        self._pending[identifier] = asked
        self._ask(_framed(identifier + message[2:]))

    def _ask(self, frame: bytes) -> None:
        if self._upstream is not None:
            self._upstream.write(frame)
            return
        self._unsent.append(frame)
        if not self._connecting:
            self._connecting = True
            self._streams.spawn(self._connect())

    async def _connect(self) -> None:
        """Reach the server; if it cannot be reached, the pod sees its own connection end."""
        loop = self._streams.loop
        sock: socket.socket | None = None
        try:
            sock = speaking_as_pod(spelled(self._client)[0])
            async with asyncio.timeout(CONNECT_S):
                await loop.sock_connect(sock, spelled(self._server))
                transport, _ = await loop.create_connection(lambda: Server(self), sock=sock)
        except (OSError, TimeoutError):
            if sock is not None:
                sock.close()
            for asked in self._pending.values():
                self.desk.watch.failed(asked, "server not reached")
            self.desk.counts.timeouts += len(self._pending)
            self._pending.clear()
            if self._transport is not None:
                self._transport.abort()
            return
        finally:
            self._connecting = False
        if self not in self._streams.clients:
            transport.abort()
            return
        self._upstream = transport
        unsent, self._unsent = self._unsent, []
        transport.write(b"".join(unsent))

    # answers ----------------------------------------------------------------------------------------

    def answer(self, message: bytes) -> None:
        """One message of the server."""
        asked = self._pending.get(message[:2])
        if asked is None:
            self.desk.counts.spoofed += 1
            return
        self._again.discard(message[:2])
        now, more = time.monotonic(), message[:2] in self._transfers
        if more and len(message) >= HEADER and message[2] & 0x80 and message[4:6] == b"\0\0":
            answer: Answer | None = Answer(
                ()
            )  # the question may be in the first alone (RFC 5936, section 2.2.1)
        else:
            answer = self.desk.believe(asked.question, message)
        if answer is None:
            return
        if int.from_bytes(asked.question[-4:-2], "big") in (AXFR, IXFR) and not message[3] & 0x0F:
            self._transfers[message[:2]] = self._used = now
        else:
            del self._pending[message[:2]]
            self._transfers.pop(message[:2], None)
        if not more:
            self.desk.watch.answered(asked, message, answer, now)
        reply = asked.message[:2] + message[2:]
        if asked.pod.knows(asked.question[:-4], answer.addresses, time.time()):
            self._give(reply)
        else:
            self.desk.openings.submit(
                asked.pod, asked.question[:-4], answer.addresses, lambda: self._give(reply)
            )

    def lost_server(self) -> None:
        """The server has ended its connection: what it had not answered is asked again, once."""
        self._upstream = None
        if self._transport is None or self._transport.is_closing():
            return
        if self._transfers:  # the pod knows whether they are whole
            self._transport.close()
            return
        since = time.monotonic() - CONNECT_S
        again = {
            identifier: asked
            for identifier, asked in self._pending.items()
            if asked.began > since and identifier not in self._again
        }
        self._again |= again.keys()
        self._pending = again
        for identifier, asked in again.items():
            self.desk.counts.retries += 1
            self._ask(_framed(identifier + asked.message[2:]))
        if self._stopping and not again:
            self._transport.close()

    def _give(self, reply: bytes) -> None:
        self.desk.counts.answers += 1
        self._tell(reply)
        if self._paused and len(self._pending) < PENDING // 2 and self._transport is not None:
            self._paused = False
            with suppress(RuntimeError):  # it has just ended
                self._transport.resume_reading()

    def _tell(self, reply: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if reply:
            self._transport.write(_framed(reply))
        if self._stopping and not self._pending:
            self._transport.close()


class Server(asyncio.Protocol):
    """The connection to a server that belongs to a pod's."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        """Some of an answer, or several."""
        openings = self._client.desk.openings
        openings.refresh()
        for message in frames(self._buffer, data):
            self._client.answer(message)
        openings.flush()

    def connection_lost(self, error: Exception | None) -> None:
        """It has ended."""
        self._client.lost_server()


def frames(buffer: bytearray, data: bytes) -> list[bytes]:
    """The whole messages that *buffer* and *data* make; what is left stays in *buffer*."""
    buffer += data
    found, at = [], 0
    while len(buffer) - at >= 2:
        end = at + 2 + (buffer[at] << 8 | buffer[at + 1])
        if end > len(buffer):
            break
        found.append(bytes(buffer[at + 2 : end]))
        at = end
    del buffer[:at]
    return found


def _framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message
