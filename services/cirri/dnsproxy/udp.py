"""Questions over UDP: in from pods, out to servers under the pods' addresses, and back under the servers'.

The hot path.  Datagrams are taken and sent in batches, addresses stay as the kernel writes them, and
decisions are looked up by the bytes of the question.
"""

from __future__ import annotations

import os
import select
import socket
import time
from asyncio import AbstractEventLoop
from collections import OrderedDict
from collections.abc import Sequence

from cirri.dnsproxy.batches import Inbox, Outbox
from cirri.dnsproxy.desk import Asked, Desk
from cirri.dnsproxy.inflight import Inflight
from cirri.dnsproxy.message import Malformed
from cirri.dnsproxy.rules import REFUSED
from cirri.dnsproxy.sockets import packed_address, speaking_as_pod, speaking_as_server, spelled

LARGEST = 65535
BATCH = 64
"""Datagrams taken by one call."""
USES = 256
"""Questions that a socket asks; then another one, at another random port, takes its place."""
CURRENT_S = 2.0
"""How long it is used at most."""
PER_POD = 64
"""Sockets that one pod may have waiting: for 16,384 answers."""
SERVERS = 1024
"""Servers' addresses that we keep a socket bound to."""
RETRY_S, GIVE_UP_S, LOOK_S = 1.2, 4.8, 0.2
"""An unanswered question is sent again after the first, and forgotten after the second; clients have 5 s."""


class _Socket:
    """One that asks a server for a pod."""

    __slots__ = ("born", "ids", "key", "out", "pending", "sock", "tries")

    def __init__(self, key: tuple[bytes, bytes], sock: socket.socket, born: float) -> None:
        self.key, self.sock, self.born = key, sock, born
        raw = os.urandom(2 * USES)
        self.ids = list(dict.fromkeys(raw[at : at + 2] for at in range(0, 2 * USES, 2)))
        self.pending: dict[bytes, Asked] = {}
        self.tries: dict[bytes, int] = {}
        self.out: list[tuple[bytes, bytes]] = []


class Relay:
    """Everything over UDP of one instance."""

    def __init__(self, loop: AbstractEventLoop, desk: Desk, inflight: Inflight) -> None:
        self._loop, self._desk, self._counts = loop, desk, desk.counts
        self._inflight = inflight
        self._answers, self._outbox = Inbox(BATCH, LARGEST), Outbox(BATCH, LARGEST)
        self._epoll = select.epoll()
        self._current: dict[tuple[bytes, bytes], _Socket] = {}
        self._sockets: dict[int, _Socket] = {}
        self._crowd: dict[bytes, int] = {}
        """Sockets by pod's address."""
        self._servers: OrderedDict[bytes, socket.socket] = OrderedDict()
        self._replies: dict[bytes, list[tuple[bytes, bytes]]] = {}
        self._flushing = False
        self._listening: list[socket.socket] = []
        loop.add_reader(self._epoll.fileno(), self._answered)

    def listen(self, shared: Sequence[socket.socket]) -> None:
        """Take questions from *shared* sockets."""
        for one in shared:
            self._listening.append(one)
            ring = self._inflight.ring(one.family)
            self._loop.add_reader(one.fileno(), self._asked, one.fileno(), ring)

    def stop(self) -> None:
        """Take no more; what is under way goes on."""
        for one in self._listening:
            self._loop.remove_reader(one.fileno())
        self._listening.clear()

    @property
    def waiting(self) -> int:
        """Questions that wait for an answer."""
        return sum(len(one.pending) for one in self._sockets.values())

    def close(self) -> None:
        """Give every socket back."""
        self.stop()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        for one in (*self._servers.values(), *(each.sock for each in self._sockets.values())):
            one.close()

    # questions --------------------------------------------------------------------------------------

    def _asked(self, fd: int, ring: Inbox) -> None:
        first = self._inflight.room(ring, BATCH)
        messages = ring.receive_from(fd, first, BATCH)
        self._inflight.took(ring, len(messages))
        self.take(messages, ring, first)

    def take(self, messages: Sequence[tuple[bytes, bytes, bytes]], ring: Inbox | None, first: int) -> None:
        """Decide about questions (data, client, server) that came in slots from *first* on."""
        now = time.monotonic()
        desk, counts, watch = self._desk, self._counts, self._desk.watch
        counts.queries += len(messages)
        touched: set[_Socket] = set()
        for slot, (message, client, server) in enumerate(messages, first):
            pod = desk.pods.get(packed_address(client))
            if pod is None or not server:
                counts.strangers += 1
                if ring:
                    ring.done(slot)
                continue
            try:
                end, rule, who = desk.decide(pod, socket.IPPROTO_UDP, server, message)
            except Malformed:
                if reply := desk.objection(message):
                    self._replies.setdefault(server, []).append((client, reply))
                if ring:
                    ring.done(slot)
                continue
            question = message[12:end].lower()
            asked = Asked(pod, client, server, who, question, rule, now, message, slot, ring)
            if rule == REFUSED:
                reply = desk.refuse(asked, end)
                self._replies.setdefault(server, []).append((client, reply))
                if ring:
                    ring.done(slot)
                continue
            key = (packed_address(client), server)
            one = self._current.get(key)
            if one is None or not one.ids or now > one.born + CURRENT_S:
                one = self._another(key, client, now)
                if one is None:
                    _done(asked)
                    continue
            watch.passed(asked)
            identifier = one.ids.pop()
            one.pending[identifier] = asked
            one.out.append((b"", identifier + message[2:]))
            touched.add(one)
        for one in touched:
            counts.unsent += self._outbox.send(one.sock.fileno(), one.out)
            one.out.clear()
        self._flush()

    def _another(self, key: tuple[bytes, bytes], client: bytes, now: float) -> _Socket | None:
        """A new socket for questions of a pod to a server; None if it has too many."""
        pod, server = key
        if self._crowd.get(pod, 0) >= PER_POD:
            self._counts.crowded += 1
            return None
        try:
            sock = speaking_as_pod(spelled(client)[0], spelled(server), socket.SOCK_DGRAM)
        except OSError:
            self._counts.unsent += 1
            return None
        one = self._current[key] = self._sockets[sock.fileno()] = _Socket(key, sock, now)
        self._crowd[pod] = self._crowd.get(pod, 0) + 1
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return one

    # answers ----------------------------------------------------------------------------------------

    def _answered(self) -> None:
        desk = self._desk
        self._flushing = True  # at the end
        try:
            desk.openings.refresh()
            wall, now = time.time(), time.monotonic()
            for fd, _ in self._epoll.poll(0, BATCH):
                one = self._sockets.get(fd)
                if one is not None:
                    for message in self._answers.receive(fd):
                        self._answer(one, message, wall, now)
            desk.openings.flush()
        finally:
            self._flush()

    def _answer(self, one: _Socket, message: bytes, wall: float, now: float) -> None:
        """One message of a server to a pod: nothing, unless it answers a question."""
        asked = one.pending.get(message[:2])
        if asked is None:
            self._counts.spoofed += 1
            return
        answer = self._desk.believe(asked.question, message)
        if answer is None:
            return
        del one.pending[message[:2]]
        name, addresses = asked.question[:-4], answer.addresses
        self._desk.watch.answered(asked, message, answer, now)
        if asked.pod.knows(name, addresses, wall):
            self._give(asked, message)
        else:
            self._desk.openings.submit(asked.pod, name, addresses, lambda: self._give(asked, message))

    def _give(self, asked: Asked, message: bytes) -> None:
        """Answer a pod, soon."""
        _done(asked)
        self._counts.answers += 1
        self._replies.setdefault(asked.server, []).append((asked.client, asked.message[:2] + message[2:]))
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what pods are to be told."""
        self._flushing = False
        if not self._replies:
            return
        replies, self._replies = self._replies, {}
        for server, messages in replies.items():
            sock = self._servers.get(server) or self._as_server(server)
            if sock is None:
                self._counts.unsent += len(messages)
            else:
                self._counts.unsent += self._outbox.send(sock.fileno(), messages)

    def _as_server(self, server: bytes) -> socket.socket | None:
        if len(self._servers) >= SERVERS:
            self._servers.popitem(last=False)[1].close()
        try:
            found = self._servers[server] = speaking_as_server(spelled(server))
        except OSError as error:
            self._desk.cannot(spelled(server), error)
            return None
        return found

    # time -------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Every :data:`LOOK_S`: ask again, give up, close sockets that have done their work."""
        now = time.monotonic()
        for one in list(self._sockets.values()):
            self._look_at(one, now)
            used_up = not one.ids or now > one.born + CURRENT_S
            if used_up and self._current.get(one.key) is one:
                del self._current[one.key]
            if used_up and not one.pending:
                self._close(one)

    def _look_at(self, one: _Socket, now: float) -> None:
        over = []
        for identifier, asked in one.pending.items():
            age, tries = now - asked.began, one.tries.get(identifier, 0)
            if age < RETRY_S:
                break  # those that follow are younger
            if age >= GIVE_UP_S:
                over.append(identifier)
            elif age >= RETRY_S * (tries + 1):
                one.tries[identifier] = tries + 1
                self._counts.retries += 1
                one.out.append((b"", identifier + asked.message[2:]))
        for identifier in over:
            asked = one.pending.pop(identifier)
            _done(asked)
            self._counts.timeouts += 1
            self._desk.watch.failed(asked, "no answer")
        if one.out:
            self._counts.unsent += self._outbox.send(one.sock.fileno(), one.out)
            one.out.clear()

    def _close(self, one: _Socket) -> None:
        self._epoll.unregister(one.sock.fileno())
        del self._sockets[one.sock.fileno()]
        one.sock.close()
        self._crowd[one.key[0]] -= 1
        if not self._crowd[one.key[0]]:
            del self._crowd[one.key[0]]


def _done(asked: Asked) -> None:
    if asked.ring is not None:
        asked.ring.done(asked.slot)
