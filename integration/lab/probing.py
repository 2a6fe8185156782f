"""Who reaches whom, asked of real sockets: every pair of a set of namespaces at the same time.

Denied packets vanish, so that one did not arrive shows only by waiting.  A round lasts until everything
that is expected to arrive has, and :data:`QUIET_S` longer for what is not expected.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

from cirri.netlink.namespace import inside, namespace

QUIET_S = 0.25
PATIENCE_S = 5.0
"""How long what is expected may take; a lost first SYN is sent again after one second."""
BACKLOG = 1024


class Ask(NamedTuple):
    """One question: may *source* reach *target* at this port?"""

    source: str
    target: str
    protocol: str
    """TCP, UDP, ICMP or ICMPv6."""
    port: int
    """Of the destination; with ICMP the type of an echo request."""


class Party(NamedTuple):
    """One end of the conversation."""

    netns: str
    ipv4: str
    ipv6: str

    def address(self, protocol: str) -> str:
        """Where *protocol* finds it."""
        return self.ipv6 if protocol == "ICMPv6" else self.ipv4


class Prober:
    """Listens in every party's namespace; :meth:`round` asks."""

    def __init__(self, parties: Mapping[str, Party], ports: Collection[tuple[str, int]]) -> None:
        self._parties = parties
        self._listeners: list[socket.socket] = []
        self._heard: dict[socket.socket, tuple[str, int]] = {}
        """UDP sockets: whose it is and its port."""
        self._round = 0
        for name, party in parties.items():
            with namespace(f"/run/netns/{party.netns}") as fd:
                for protocol, port in ports:
                    if protocol in ("TCP", "UDP"):
                        sock = inside(fd, lambda p=protocol, n=port: _listener(p, n))  # type: ignore[misc]
                        self._listeners.append(sock)
                        if protocol == "UDP":
                            self._heard[sock] = (name, port)

    def close(self) -> None:
        """Listen no more."""
        for sock in self._listeners:
            sock.close()

    def round(self, asks: Collection[Ask], expected: Collection[Ask]) -> set[Ask]:
        """Those of *asks* that arrived; *expected* are waited for."""
        self._round += 1
        self._drain()
        wanted, found = set(expected), set[Ask]()
        sockets = self._send(asks)
        poll = select.epoll()
        names: dict[int, Ask | socket.socket] = {}
        try:
            for sock in self._heard:
                names[sock.fileno()] = sock
                poll.register(sock, select.EPOLLIN)
            for ask, sock in sockets:
                if ask.protocol != "UDP":
                    names[sock.fileno()] = ask if ask.protocol == "TCP" else sock
                    poll.register(sock, select.EPOLLOUT if ask.protocol == "TCP" else select.EPOLLIN)
            echoes = {sock.fileno(): ask for ask, sock in sockets if ask.protocol.startswith("ICMP")}
            deadline = time.monotonic() + PATIENCE_S
            while (left := deadline - time.monotonic()) > 0:
                for fd, events in poll.poll(min(left, QUIET_S)):
                    what = names[fd]
                    if isinstance(what, Ask):
                        poll.unregister(fd)
                        if not events & (select.EPOLLERR | select.EPOLLHUP):
                            found.add(what)
                    elif fd in echoes:
                        found.update(self._echo(what, echoes[fd]))
                    else:
                        found.update(self._datagrams(what))
                if wanted <= found:
                    deadline = min(deadline, time.monotonic() + QUIET_S)
                    wanted = set()
                    if deadline <= time.monotonic():
                        break
        finally:
            poll.close()
            for _, sock in sockets:
                sock.close()
        return found & set(asks)

    def _send(self, asks: Collection[Ask]) -> list[tuple[Ask, socket.socket]]:
        made: list[tuple[Ask, socket.socket]] = []
        for source in sorted({ask.source for ask in asks}):
            mine = [ask for ask in asks if ask.source == source]
            with namespace(f"/run/netns/{self._parties[source].netns}") as fd:
                made += inside(fd, lambda m=mine: [(ask, _client(ask.protocol)) for ask in m])  # type: ignore[misc]
        for number, (ask, sock) in enumerate(made):
            address = self._parties[ask.target].address(ask.protocol)
            with _denied_at_once():
                if ask.protocol == "TCP":
                    sock.connect((address, ask.port))
                elif ask.protocol == "UDP":
                    sock.sendto(f"{self._round} {ask.source}".encode(), (address, ask.port))
                else:
                    sock.sendto(_echo_request(ask, number), (address, 0))
        return made

    def _datagrams(self, sock: socket.socket) -> Iterator[Ask]:
        target, port = self._heard[sock]
        with suppress(BlockingIOError):
            while True:
                number, source = sock.recv(256).decode().split()
                if int(number) == self._round:
                    yield Ask(source, target, "UDP", port)

    def _echo(self, sock: socket.socket, ask: Ask) -> Iterator[Ask]:
        with suppress(BlockingIOError):
            while True:
                data, peer = sock.recvfrom(256)
                if ask.protocol == "ICMP":
                    data = data[(data[0] & 15) * 4 :]
                reply = data[0] == (0 if ask.protocol == "ICMP" else 129)
                if reply and peer[0] == self._parties[ask.target].address(ask.protocol):
                    yield ask

    def _drain(self) -> None:
        for sock in self._listeners:
            with suppress(BlockingIOError):
                while sock.type == socket.SOCK_STREAM:
                    sock.accept()[0].close()
            with suppress(BlockingIOError):
                while sock.type == socket.SOCK_DGRAM:
                    sock.recv(256)


@contextmanager
def _denied_at_once() -> Iterator[None]:
    """What a node's own packets meet on the way to a pod, its sockets are told: dropped, or pending."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINPROGRESS, errno.ENOBUFS):
            raise


def _listener(protocol: str, port: int) -> socket.socket:
    kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
    sock = socket.socket(socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setblocking(False)
    sock.bind(("", port))
    if kind == socket.SOCK_STREAM:
        sock.listen(BACKLOG)
    return sock


def _client(protocol: str) -> socket.socket:
    match protocol:
        case "ICMP":
            sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        case "ICMPv6":
            sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        case _:
            kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
            sock = socket.socket(socket.AF_INET, kind)
    sock.setblocking(False)
    return sock


def _echo_request(ask: Ask, number: int) -> bytes:
    header = struct.pack("!BBHHH", ask.port, 0, 0, 1 + number & 0xFFFF, 1)
    if ask.protocol == "ICMPv6":
        return header  # the kernel fills in the checksum
    total = sum(struct.unpack("!4H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!BBHHH", ask.port, 0, ~total & 0xFFFF, 1 + number & 0xFFFF, 1)
