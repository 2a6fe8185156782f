"""Traffic with a memory: every datagram, connection and byte is accounted for.

``traffic.py serve PORT`` echoes UDP and TCP.  ``traffic.py drive HOST PORT`` sends 500
datagrams a second, keeps 50 TCP connections talking and opens new ones, until its standard
input closes; then it prints what was lost, as JSON.  Standard library only: it runs in pods.
"""

import asyncio
import json
import socket
import sys
import threading
import time

RATE = 500
CONNECTIONS = 50
NEW_PER_S = 10
CONNECT_TIMEOUT_S = 5
DRAIN_S = 2
BUFFER = 16 << 20


def _udp(host: str = "") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
    return sock


def _echo_datagrams(port: int) -> None:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    sock.bind(("::", port))
    while True:
        data, peer = sock.recvfrom(2048)
        sock.sendto(data, peer)


async def serve(port: int) -> None:
    """Echo datagrams and streams on *port*, both families, for ever."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(4096):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    threading.Thread(target=_echo_datagrams, args=(port,), daemon=True).start()
    server = await asyncio.start_server(echo, ["0.0.0.0", "::"], port, backlog=1024)
    print("serving", flush=True)
    await server.serve_forever()


class Datagrams:
    """One sender and one receiver thread around one connected socket."""

    def __init__(self, host: str, port: int) -> None:
        self.sock = _udp(host)
        self.sock.connect((host, port))
        self.sent = 0
        self.errors: list[str] = []
        self.seen: set[int] = set()
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self._send, self._receive)]

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def _send(self) -> None:
        due = time.monotonic()
        while not self.stop.is_set():
            try:
                self.sock.send(self.sent.to_bytes(8, "big"))
            except OSError as error:
                self.errors.append(repr(error))
            self.sent += 1
            due += 1 / RATE
            time.sleep(max(0.0, due - time.monotonic()))

    def _receive(self) -> None:
        while True:
            try:
                self.seen.add(int.from_bytes(self.sock.recv(64), "big"))
            except OSError as error:
                self.errors.append(repr(error))

    def finish(self) -> dict[str, object]:
        self.stop.set()
        self.threads[0].join()
        deadline = time.monotonic() + DRAIN_S
        while len(self.seen) < self.sent and time.monotonic() < deadline:
            time.sleep(0.01)
        lost = sorted(set(range(self.sent)) - self.seen)
        return {
            "udp_sent": self.sent,
            "udp_lost": len(lost),
            "udp_first_lost": lost[:5],
            "udp_errors": self.errors[:5],
        }


class Streams:
    """Connections that stay, and connections that come and go."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.stop = asyncio.Event()
        self.messages = self.opened = 0
        self.slowest_s = 0.0
        self.broken: list[str] = []
        self.refused: list[str] = []

    async def _talk(self, name: int) -> None:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        count = 0
        while not self.stop.is_set():
            text = b"%08d%08d" % (name, count)
            began = time.monotonic()
            try:
                writer.write(text)
                answer = await reader.readexactly(len(text))
            except (OSError, asyncio.IncompleteReadError) as error:
                self.broken.append(f"connection {name}, message {count}: {error!r}")
                return
            if answer != text:
                self.broken.append(f"connection {name}, message {count}: answered {answer!r}")
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            count += 1
            self.messages += 1
            await asyncio.sleep(0.1)
        writer.close()

    async def _once(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(self.host, self.port)
                writer.write(b"x")
                await reader.readexactly(1)
                writer.close()
            self.opened += 1
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            self.refused.append(repr(error))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for name in range(CONNECTIONS):
                tasks.create_task(self._talk(name))
            while not self.stop.is_set():
                tasks.create_task(self._once())
                await asyncio.sleep(1 / NEW_PER_S)

    def report(self) -> dict[str, object]:
        return {
            "tcp_messages": self.messages,
            "tcp_broken": self.broken,
            "tcp_slowest_s": round(self.slowest_s, 3),
            "new_opened": self.opened,
            "new_refused": self.refused,
        }


async def drive(host: str, port: int) -> None:
    """Send until standard input closes, then print the account."""
    datagrams, streams = Datagrams(host, port), Streams(host, port)
    datagrams.start()
    running = asyncio.ensure_future(streams.run())
    print("driving", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    streams.stop.set()
    await running
    print(json.dumps({**await asyncio.to_thread(datagrams.finish), **streams.report()}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(int(sys.argv[2])))
    else:
        asyncio.run(drive(sys.argv[2], int(sys.argv[3])))
