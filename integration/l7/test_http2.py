"""Hostile HTTP/2: of what the rules refuse nothing reaches the server, and Envoy lives on."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping

import pytest
from integration.l7.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    HELLO,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    Http2Server,
    asks,
    block,
    frame,
    head,
)
from integration.l7.sending import send

from cirri.testing.proxied import Proxied, http

PORT, SEED = 8600, 20261123
QUIET_S = 0.3
"""When nothing has been heard for so long, nothing more comes."""
ALLOWED = [
    {"method": "GET", "path": "/public"},
    {"path": "/host", "host": "b"},
    {"path": "/t", "headers": ["X-Tenant: acme"]},
]
NO = head(b"/secret")
FINE = head()


def in_pieces(header_block: bytes, size: int) -> bytes:
    """A request whose headers come in frames of *size* bytes."""
    pieces = [header_block[at : at + size] for at in range(0, len(header_block), size)]
    rest = [frame(CONTINUATION, 0, 1, piece) for piece in pieces[1:-1]]
    last = frame(CONTINUATION, END_HEADERS, 1, pieces[-1])
    return b"".join([frame(HEADERS, END_STREAM, 1, pieces[0]), *rest, last])


PATHS = (
    b"", b"*", b"public", b"/PUBLIC", b"/public/", b"/public?x", b"/public#x", b"/public;x", b"/public%00",
    b"/public\x00", b"/public ", b" /public", b"/public\r\nx: y", b"/public HTTP/1.1\r\n\r\nGET /secret",
    b"/public/../secret", b"/public%2f..%2fsecret", b"/%2e%2e/secret", b"\\public", b"http://a/secret",
    b"/\xff", b"/" + b"a" * 70000,
)  # fmt: skip
METHODS = (
    b"",
    b"get",
    b"GET ",
    b"POST",
    b"GETPOST",
    b"GET\x00",
    b"PRI",
    b"CONNECT",
    b"GET /public HTTP/1.1\r\n",
)
EXTRA = (b":path", b":method", b":protocol", b":unknown", b":status")
REFUSED: Mapping[str, bytes] = {
    **{f"path {path[:40]!r}": asks(head(path)) for path in PATHS},
    **{f"method {method!r}": asks(head(b"/public", method)) for method in METHODS},
    **{f"{name!r} as well": asks(head(b"/public", b"GET", b"a", (name, b"/secret"))) for name in EXTRA},
    "path twice, the wrong one first": asks(block((b":path", b"/secret")) + FINE),
    "path after a header": asks(block((b":method", b"GET"), (b"x", b"y"), (b":path", b"/public"))),
    "no path": asks(block((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"))),
    "no method": asks(block((b":path", b"/public"), (b":scheme", b"http"), (b":authority", b"a"))),
    "host beside authority": asks(head(b"/host", b"GET", b"a", (b"host", b"b"))),
    "two hosts": asks(head(b"/host", b"GET", b"a", (b"host", b"a"), (b"host", b"b"))),
    "a list of tenants": asks(head(b"/t", b"GET", b"a", (b"x-tenant", b"acme"), (b"x-tenant", b"other"))),
    "a header in capitals": asks(head(b"/t", b"GET", b"a", (b"X-Tenant", b"acme"))),
    "a line end in a header": asks(head(b"/t", b"GET", b"a", (b"x-tenant", b"acme\r\nx: y"))),
    "chunked": asks(head(b"/secret", b"GET", b"a", (b"transfer-encoding", b"chunked"))),
    "websocket": asks(head(b"/secret", b"CONNECT", b"a", (b":protocol", b"websocket"))),
    "in pieces": in_pieces(NO, 1),
    "many empty pieces": frame(HEADERS, END_STREAM, 1, NO) + frame(CONTINUATION, 0, 1) * 500,
    "data between pieces": frame(HEADERS, 0, 1, NO) + frame(DATA, 0, 1) + frame(CONTINUATION, END_HEADERS, 1),
    "padded": asks(b"\x05" + NO + bytes(5), 1, END_HEADERS | END_STREAM | PADDED),
    "more padding than frame": asks(b"\xff" + FINE, 1, END_HEADERS | END_STREAM | PADDED),
    "depends on itself": asks(b"\0\0\0\1\0" + NO, 1, END_HEADERS | END_STREAM | WITH_PRIORITY),
    "stream 0": asks(FINE, 0),
    "a stream of the server's": asks(FINE, 2),
    "a stream that has gone by": asks(NO, 5) + asks(NO, 3),
    "a promise": frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + FINE),
    "data of no request": frame(DATA, END_STREAM, 1, b"GET /public HTTP/1.1\r\n\r\n"),
    "index out of the table": asks(b"\xff\xff\x7f" + FINE),
    "a number without end": asks(b"\xff" * 30),
    "too large a table": asks(b"\x3f\xe1\xff\x7f" + FINE),
    "broken Huffman code": asks(b"\x00\x84\xff\xff\xff\xff\x00" + FINE),
    "settings of 5 bytes": frame(SETTINGS, 0, 0, b"12345") + asks(FINE),
    "a window of 2^31": frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") + asks(FINE),
    "a frame larger than agreed": asks(FINE + block((b"x", b"y" * 20000))),
    "no settings": PREFACE + asks(NO),
    "pings": frame(PING, 0, 0, b"12345678") * 300 + asks(NO),
    "priorities": frame(PRIORITY, 0, 1, b"\0\0\0\0\0") * 300 + asks(NO),
    "asked and taken back": b"".join(
        asks(NO, 2 * n + 1) + frame(RST_STREAM, 0, 2 * n + 1, b"\0\0\0\x08") for n in range(200)
    ),
    "after goodbye": frame(GOAWAY, 0, 0, bytes(8)) + asks(NO),
    "HTTP/1.1 in between": b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n",
}  # fmt: skip


@pytest.fixture
def server(world: Proxied) -> Iterator[Http2Server]:
    rules = json.dumps({"any": False, "allows": [{"requests": ALLOWED}]})
    world.publish({PORT: http(10600, rules)})
    one = Http2Server(world.ns("s"), PORT)
    yield one
    one.close()


def whole(raw: bytes) -> bytes:
    """*raw* behind what a client begins with."""
    return raw if raw.startswith(PREFACE) else HELLO + raw


def reaches(world: Proxied, server: Http2Server, raw: bytes) -> bool:
    """Whether the server is asked anything because of *raw*."""
    before = server.asked
    send(world, PORT, [whole(raw)], QUIET_S)
    return server.asked != before


def works(world: Proxied, server: Http2Server) -> bool:
    """Whether what is allowed passes, each once."""
    before = server.asked
    tenant = head(b"/t", b"GET", b"a", (b"x-tenant", b"acme"))
    send(
        world,
        PORT,
        [HELLO + asks(FINE) + asks(head(b"/host", b"GET", b"b"), 3) + asks(tenant, 5) + asks(NO, 7)],
        QUIET_S,
    )
    return server.asked == before + 3


def test_hostile_frames(world: Proxied, server: Http2Server) -> None:
    assert works(world, server)
    before = server.asked
    send(world, PORT, list(map(whole, REFUSED.values())), QUIET_S)
    assert server.asked == before, [name for name, raw in REFUSED.items() if reaches(world, server, raw)]
    assert works(world, server)


def test_damaged_frames(world: Proxied, server: Http2Server) -> None:
    """Nothing of it is near to what is allowed, so nothing arrives, however it is broken."""
    dice = random.Random(SEED)
    refused = [asks(NO), in_pieces(NO, 7), asks(head(b"/secret", b"POST", b"a", (b"x-tenant", b"acme")))]
    cases = []
    for _ in range(300):
        raw = bytearray(dice.choice(refused) + dice.choice(refused))
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(raw))
            raw[at : at + dice.randint(0, 2)] = dice.randbytes(dice.randint(0, 2))
        cases.append(HELLO + bytes(raw))
    for at in range(0, len(cases), 100):
        send(world, PORT, cases[at : at + 100], QUIET_S)
    assert not server.asked
    assert works(world, server)
