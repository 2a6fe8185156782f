"""An HTTP server that says whom it sees, and a client that asks many at once.

``requesting.py serve PORT`` answers every request, of both families, with one line: the client's address,
method, path and how many bytes of body it got.  ``requesting.py drive ADDRESS PORT`` keeps connections that
ask again and again, and opens new ones, until standard input closes; then it prints the account as JSON.
What is allowed is ``POST /allowed``; ``PUT /forbidden`` is asked too, and must never reach the server.
Standard library only: it runs in pods.
"""

import asyncio
import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

LASTING = 8
PAUSE_S = 0.02
NEW_EVERY_S = 0.05
ANSWER_S = 5.0
ALLOWED, FORBIDDEN = ("POST", "/allowed"), ("PUT", "/forbidden")


class Handler(BaseHTTPRequestHandler):
    """Says whom it sees."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self) -> None:
        """One line."""
        size = 0
        if self.headers.get("transfer-encoding", "") == "chunked":
            while length := int(self.rfile.readline(), 16):
                size += len(self.rfile.read(length))
                self.rfile.readline()
            self.rfile.readline()
        else:
            left = int(self.headers.get("content-length", "0"))
            while left > 0:
                piece = self.rfile.read(min(left, 1 << 16))
                size, left = size + len(piece), left - len(piece)
        client = self.client_address[0].removeprefix("::ffff:")
        extra = self.headers.get("x-extra", "")
        body = f"{client} {self.command} {self.path} {size} {extra}".rstrip().encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

    def log_message(self, *args: object) -> None:
        """Nothing."""


class Server(ThreadingHTTPServer):
    """Both families on one socket."""

    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 1024

    def server_bind(self) -> None:
        """Without asking DNS for the machine's name."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "server", self.server_address[1]

    def handle_error(self, *args: object) -> None:
        """Clients that hang up are no event."""


class Connection:
    """One of them."""

    patience: ClassVar[float] = ANSWER_S

    def __init__(self, host: str, port: int) -> None:
        self.where = host, port

    async def open(self) -> None:
        """Raises: OSError, TimeoutError."""
        async with asyncio.timeout(ANSWER_S):
            self.reader, self.writer = await asyncio.open_connection(*self.where)

    async def ask(self, method: str, path: str) -> tuple[int, str]:
        """(status, body).  Raises: OSError, EOFError, TimeoutError."""
        async with asyncio.timeout(ANSWER_S):
            body = "hi" if method == "POST" else ""  # a refusal before a body has come ends the connection
            head = f"{method} {path} HTTP/1.1\r\nHost: server\r\nContent-Length: {len(body)}\r\n\r\n"
            self.writer.write((head + body).encode())
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = int(head.partition("content-length:")[2].partition("\r\n")[0])
            return int(head.split()[1]), (await self.reader.readexactly(size)).decode()

    def close(self) -> None:
        """Without waiting."""
        self.writer.transport.abort()


class Driver:
    """All connections, and what became of them."""

    def __init__(self, host: str, port: int) -> None:
        self.where = host, port
        self.stop = asyncio.Event()
        self.count: Counter[str] = Counter()
        self.wrong: list[tuple[float, str]] = []
        self.slowest = 0.0

    def note(self, what: str) -> None:
        """Something went wrong, now."""
        self.wrong.append((time.monotonic(), what))

    async def ask(self, connection: Connection) -> None:
        """One that is allowed and one that is not."""
        for method, path in (ALLOWED, FORBIDDEN):
            began = time.monotonic()
            status, body = await connection.ask(method, path)
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.count[f"{method} {status}"] += 1
            if (method, path) == FORBIDDEN and path in body:
                self.count["reached the server"] += 1

    async def last(self) -> None:
        """One connection for as long as it goes, then another."""
        while not self.stop.is_set():
            if connection := await self.open("lasting"):
                try:
                    while not self.stop.is_set():
                        await self.ask(connection)
                        await asyncio.sleep(PAUSE_S)
                except (OSError, EOFError, TimeoutError, ValueError) as error:
                    self.note(f"lasting: {error!r}")
                finally:
                    connection.close()

    async def once(self) -> None:
        """A new connection."""
        if connection := await self.open("new"):
            try:
                await self.ask(connection)
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                self.note(f"new: {error!r}")
            finally:
                connection.close()

    async def open(self, kind: str) -> Connection | None:
        """None, after a pause, if there is no way."""
        connection = Connection(*self.where)
        try:
            await connection.open()
        except (OSError, TimeoutError) as error:
            self.note(f"{kind} not opened: {error!r}")
            await asyncio.sleep(PAUSE_S)
            return None
        self.count[f"{kind} opened"] += 1
        return connection

    async def run(self) -> None:
        """Until told to stop."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(LASTING):
                tasks.create_task(self.last())
            while not self.stop.is_set():
                tasks.create_task(self.once())
                await asyncio.sleep(NEW_EVERY_S)

    def account(self) -> dict[str, Any]:
        """All of it."""
        return {**self.count, "wrong": self.wrong, "slowest_s": round(self.slowest, 3)}


async def drive(host: str, port: int) -> None:
    """Until standard input closes."""
    driver, loop = Driver(host, port), asyncio.get_running_loop()

    def until_closed(then: Callable[[], None]) -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(then)

    threading.Thread(target=until_closed, args=(driver.stop.set,), daemon=True).start()
    print("driving", flush=True)
    await driver.run()
    print(json.dumps(driver.account()), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        with Server(("::", int(sys.argv[2])), Handler) as server:
            server.serve_forever()
    else:
        asyncio.run(drive(sys.argv[2], int(sys.argv[3])))
