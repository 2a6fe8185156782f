"""Sockets inside other network namespaces, and servers and clients made of them."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
import time
from contextlib import suppress

CLONE_NEWNET = 0x40000000


def socket_in(netns: str, kind: socket.SocketKind, family: int = socket.AF_INET) -> socket.socket:
    """A socket of the namespace *netns*, whatever namespace the caller is in."""
    made: list[socket.socket] = []

    def make() -> None:
        fd = os.open(f"/run/netns/{netns}", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) == 0:
                made.append(socket.socket(family, kind))
        finally:
            os.close(fd)

    visitor = threading.Thread(target=make)
    visitor.start()
    visitor.join()
    made[0].settimeout(1.0)
    return made[0]


class Echo:
    """A TCP and a UDP echo server in a namespace, on one port; counts what reached it."""

    def __init__(self, netns: str, port: int, family: int = socket.AF_INET) -> None:
        self.connections = self.datagrams = 0
        any_address = "::" if family == socket.AF_INET6 else "0.0.0.0"  # noqa: S104
        self._tcp, self._udp = (
            socket_in(netns, kind, family) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
        )
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for one in (self._tcp, self._udp):
            one.settimeout(None)
            one.bind((any_address, port))
        self._tcp.listen(64)
        for serve in (self._accept, self._answer):
            threading.Thread(target=serve, daemon=True).start()

    def close(self) -> None:
        """Stop."""
        for one in (self._tcp, self._udp):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def __enter__(self) -> Echo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._tcp.accept()
                self.connections += 1
                threading.Thread(target=self._echo, args=(peer,), daemon=True).start()

    @staticmethod
    def _echo(peer: socket.socket) -> None:
        with suppress(OSError), peer:
            while data := peer.recv(65536):
                peer.sendall(data)

    def _answer(self) -> None:
        with suppress(OSError):
            while True:
                data, peer = self._udp.recvfrom(2048)
                if not peer:
                    return  # shut down
                self.datagrams += 1
                self._udp.sendto(data, peer)


def connects(source: str, address: str, port: int, *, timeout_s: float = 0.5) -> bool:
    """Whether a TCP connection from namespace *source* works, data included."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket_in(source, socket.SOCK_STREAM, family) as client:
        client.settimeout(timeout_s)
        try:
            client.connect((address, port))
            client.sendall(b"ping")
            return client.recv(4) == b"ping"
        except OSError:
            return False


class Stream:
    """A kilohertz of numbered datagrams to an echo server, and a TCP connection that talks all the time."""

    def __init__(self, netns: str, address: str, port: int) -> None:
        self.sent = self.received = 0
        self.broken = ""
        self._udp, self._tcp = socket_in(netns, socket.SOCK_DGRAM), socket_in(netns, socket.SOCK_STREAM)
        self._udp.connect((address, port))
        self._tcp.connect((address, port))
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=t) for t in (self._send, self._receive, self._talk)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._stop.is_set():
            self._udp.send(self.sent.to_bytes(8, "big"))
            self.sent += 1
            time.sleep(0.001)

    def _receive(self) -> None:
        self._udp.settimeout(0.5)
        while True:
            try:
                self._udp.recv(8)
                self.received += 1
            except TimeoutError:
                if self._stop.is_set():
                    return

    def _talk(self) -> None:
        try:
            while not self._stop.is_set():
                self._tcp.sendall(b"ping")
                if self._tcp.recv(4) != b"ping":
                    self.broken = "closed"
                    return
                time.sleep(0.002)
        except OSError as error:
            self.broken = str(error)

    def close(self) -> None:
        """Stop and collect what is still on its way."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()


class Ticker:
    """A TCP server that speaks unasked: a byte to its one client every few milliseconds, for ever."""

    def __init__(self, netns: str, port: int, family: int = socket.AF_INET) -> None:
        self._server = socket_in(netns, socket.SOCK_STREAM, family)
        self._server.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))  # noqa: S104
        self._server.listen(1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            client, _ = self._server.accept()
            with client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while not self._stop.wait(0.005):
                    client.send(b".")

    def __enter__(self) -> Ticker:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._server.close()


class Flood:
    """Datagrams to all of *targets* in turn, as fast as one thread can.

    Each says which one it is, when it was sent (ns, CLOCK_MONOTONIC) and to whom.
    """

    def __init__(self, netns: str, targets: list[str], port: int) -> None:
        self.sent = 0
        family = socket.AF_INET6 if ":" in targets[0] else socket.AF_INET
        self._socket = socket_in(netns, socket.SOCK_DGRAM, family)
        self._targets, self._port = targets, port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            for target in self._targets:
                with suppress(OSError):
                    said = f"{self.sent} {time.monotonic_ns()} {target}"
                    self._socket.sendto(said.encode(), (target, self._port))
                    self.sent += 1
            time.sleep(0)

    def aim(self, targets: list[str]) -> None:
        """Send to *targets* from now on."""
        self._targets = targets

    def __enter__(self) -> Flood:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()


class Ear:
    """Hears every datagram to *port* in a namespace, from before it has an address."""

    def __init__(self, netns: str, port: int, version: int = 4) -> None:
        self.first: list[str] = []
        """What the first ones said, and from whom they came."""
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        self._socket = socket_in(netns, socket.SOCK_DGRAM, family)
        self._socket.bind(("::" if version == 6 else "0.0.0.0", port))  # noqa: S104
        self._socket.setblocking(False)

    def heard(self) -> int:
        """How many arrived since the last call."""
        count = 0
        with suppress(BlockingIOError):
            while True:
                said, source = self._socket.recvfrom(64)
                count += 1
                if len(self.first) < 20:
                    self.first.append(f"{said.decode(errors='replace')} from {source}")
        return count

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
