"""An HTTP/1.1 server in another namespace that keeps every byte it is sent, and a client for raw requests."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from http.client import HTTPResponse
from typing import NamedTuple

import msgspec

from cirri.testing.sockets import socket_in


class Seen(NamedTuple):
    """A request as the server read it."""

    peer: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    raw: bytes
    """All bytes of the request, as they came."""

    def header(self, name: str) -> list[str]:
        """Values of the header *name*."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Reply(NamedTuple):
    """What a client got."""

    status: int
    headers: dict[str, str]
    body: bytes


class Recorder:
    """Answers every request with 200 and the peer's address; ``/ws`` with an upgrade and an echo.

    *context* makes it speak TLS.
    """

    def __init__(self, netns: str, port: int, context: ssl.SSLContext | None = None) -> None:
        self.seen: list[Seen] = []
        self.connections = 0
        self.names: list[str] = []
        """Server names that TLS clients asked for."""
        self._context = context
        self._open: set[socket.socket] = set()
        if context is not None:
            context.sni_callback = lambda _, name, __: self.names.append(name or "")
        self._sockets = [_listen(netns, port, family) for family in (socket.AF_INET, socket.AF_INET6)]
        for one in self._sockets:
            threading.Thread(target=self._accept, args=(one,), daemon=True).start()

    def close(self) -> None:
        """Stop listening, and end every connection: a proxy keeps them for the next request."""
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self.hang_up()

    def hang_up(self) -> None:
        """End every connection."""
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                one, (peer, *_) = listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(one, peer), daemon=True).start()

    def _serve(self, one: socket.socket, peer: str) -> None:
        with suppress(OSError, ValueError, EOFError), one:
            if self._context is not None:
                one = self._context.wrap_socket(one, server_side=True)
            self._open.add(one)
            with one, one.makefile("rb") as stream:
                while (seen := _request(stream, peer)) is not None:
                    self.seen.append(seen)
                    if seen.header("upgrade"):
                        one.sendall(
                            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                            b"Connection: Upgrade\r\n\r\n"
                        )
                        while data := stream.read1(65536):
                            one.sendall(data)
                        return
                    body = msgspec.json.encode({"peer": peer, "bytes": len(seen.body)})
                    one.sendall(
                        b"HTTP/1.1 200 OK\r\nServer: recorder\r\nContent-Length: %d\r\n\r\n" % len(body)
                        + (b"" if seen.method == "HEAD" else body)
                    )


class _Stream:
    """Reads and keeps what it read."""

    def __init__(self, stream: object) -> None:
        self._stream, self.raw = stream, bytearray()

    def line(self) -> bytes:
        found: bytes = self._stream.readline(1 << 20)  # type: ignore[attr-defined]
        self.raw += found
        return found.rstrip(b"\r\n")

    def read(self, count: int) -> bytes:
        found: bytes = self._stream.read(count)  # type: ignore[attr-defined]
        if len(found) < count:
            raise EOFError
        self.raw += found
        return found


def _request(stream: object, peer: str) -> Seen | None:
    """The next request; None: the client has left."""
    reader = _Stream(stream)
    first = reader.line()
    if not first:
        return None
    method, target, _ = first.decode("latin-1").split(" ", 2)
    headers = []
    while line := reader.line():
        name, _, value = line.decode("latin-1").partition(":")
        headers.append((name, value.strip()))
    known = {name.lower(): value for name, value in headers}
    body = b""
    if "chunked" in known.get("transfer-encoding", "").lower():
        while size := int(reader.line(), 16):
            body += reader.read(size)
            reader.line()
        while reader.line():
            pass
    elif "content-length" in known:
        body = reader.read(int(known["content-length"]))
    return Seen(peer, method, target, tuple(headers), body, bytes(reader.raw))


def _listen(netns: str, port: int, family: int) -> socket.socket:
    one = socket_in(netns, socket.SOCK_STREAM, family)
    one.settimeout(None)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    one.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))  # noqa: S104
    one.listen(256)
    return one


def request(
    target: str,
    method: str = "GET",
    *,
    host: str = "api",
    headers: tuple[tuple[str, str], ...] = (),
    body: bytes = b"",
) -> bytes:
    """A request of HTTP/1.1, as bytes."""
    fields = [("Host", host), *headers, *([("Content-Length", str(len(body)))] if body else [])]
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode() + body


def ask(one: socket.socket, raw: bytes, method: str = "GET") -> Reply:
    """Send *raw* and read one answer.  Raises: OSError, http.client.HTTPException."""
    one.sendall(raw)
    return answer(one, method)


def answer(one: socket.socket, method: str = "GET") -> Reply:
    """Read one answer to a request of *method*, and not a byte more.

    Raises: OSError, http.client.HTTPException.
    """
    found = HTTPResponse(_Unbuffered(one), method=method)  # type: ignore[arg-type]
    found.begin()
    return Reply(found.status, {k.lower(): v for k, v in found.getheaders()}, found.read())


class _Unbuffered:
    """What HTTPResponse wants of a socket, such that the next answer stays where it is."""

    def __init__(self, one: socket.socket) -> None:
        self._one = one

    def makefile(self, mode: str) -> object:
        """Reads what the answer has, and no more."""
        assert mode == "rb"
        return _LineReader(self._one)


class _LineReader:
    """Reads a line byte by byte."""

    def __init__(self, one: socket.socket) -> None:
        self._one = one

    def readline(self, limit: int = -1) -> bytes:
        """One line, its end included."""
        found = bytearray()
        while not found.endswith(b"\n") and (limit < 0 or len(found) < limit):
            byte = self._one.recv(1)
            if not byte:
                break
            found += byte
        return bytes(found)

    def read(self, count: int = -1) -> bytes:
        """*count* bytes; all of them without one."""
        found = bytearray()
        while count < 0 or len(found) < count:
            some = self._one.recv(65536 if count < 0 else min(65536, count - len(found)))
            if not some:
                break
            found += some
        return bytes(found)

    def readinto(self, buffer: memoryview) -> int:
        """Fill *buffer*."""
        some = self.read(len(buffer))
        buffer[: len(some)] = some
        return len(some)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """The socket stays open."""
