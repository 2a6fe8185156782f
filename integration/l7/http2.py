"""HTTP/2 by hand (RFC 9113, RFC 7541): frames as hostile as needed, and a server that counts requests."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from cirri.testing.sockets import socket_in

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
OK = b"\x88"
"""``:status: 200``, compressed."""


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """One frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


HELLO = PREFACE + frame(SETTINGS)


def block(*headers: tuple[bytes, bytes]) -> bytes:
    """Headers as literals, nothing of them compressed or remembered."""
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers)


def head(
    path: bytes = b"/public", method: bytes = b"GET", authority: bytes = b"a", *more: tuple[bytes, bytes]
) -> bytes:
    """The header block of a request."""
    return block(
        (b":method", method), (b":scheme", b"http"), (b":authority", authority), (b":path", path), *more
    )


def asks(header_block: bytes, stream: int = 1, flags: int = END_HEADERS | END_STREAM) -> bytes:
    """A request without a body."""
    return frame(HEADERS, flags, stream, header_block)


def _text(raw: bytes) -> bytes:
    if len(raw) < 0x7F:
        return bytes((len(raw),)) + raw
    rest, out = len(raw) - 0x7F, bytearray(b"\x7f")
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes(out) + bytes((rest,)) + raw


class Http2Server:
    """Answers every request with 200, and counts them."""

    def __init__(self, netns: str, port: int) -> None:
        self.asked = 0
        self._open: set[socket.socket] = set()
        self._socket = socket_in(netns, socket.SOCK_STREAM)
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("", port))
        self._socket.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End it."""
        for one in (self._socket, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                one, _ = self._socket.accept()
                self._open.add(one)
                threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _serve(self, one: socket.socket) -> None:
        with suppress(OSError), one.makefile("rb") as reads:
            reads.read(len(PREFACE))
            one.sendall(frame(SETTINGS))
            while start := reads.read(9):
                kind, flags, stream = start[3], start[4], int.from_bytes(start[5:], "big")
                payload = reads.read(int.from_bytes(start[:3], "big"))
                if kind == HEADERS:
                    self.asked += 1
                    one.sendall(frame(HEADERS, END_HEADERS | END_STREAM, stream, OK))
                elif kind in (SETTINGS, PING) and not flags & ACK:
                    one.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
