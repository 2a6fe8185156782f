"""Readiness says why not; the HTTP server survives what is thrown at it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from cirri.runtime import health
from cirri.runtime.health import Condition, Page, readiness, serve


def test_readiness() -> None:
    page = readiness([Condition("bus", True), Condition("disk", False, "it is full")])
    assert page.status == 503
    assert json.loads(page.body) == {
        "ready": False,
        "conditions": [
            {"name": "bus", "ok": True, "why": ""},
            {"name": "disk", "ok": False, "why": "it is full"},
        ],
    }
    assert readiness([Condition("bus", True)]).status == readiness([]).status == 200


async def talk(address: tuple[str, int], sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(sent)
    await writer.drain()
    if sent:
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def with_server(test: Callable[[tuple[str, int]], Awaitable[None]], host: str = "127.0.0.1") -> None:
    async def main() -> None:
        pages = {"/healthz": lambda: Page(200, b"ok\n"), "/no": lambda: Page(503, b"no\n")}
        server, address = await serve((host, 0), pages)
        try:
            await test(address)
        finally:
            server.close()
            await server.wait_closed()

    asyncio.run(main())


REQUESTS = [
    ("get", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200, b"ok\n"),
    ("query", b"GET /healthz?x=1 HTTP/1.0\r\n\r\n", 200, b"ok\n"),
    ("not ready", b"GET /no HTTP/1.1\r\n\r\n", 503, b"no\n"),
    ("unknown page", b"GET / HTTP/1.1\r\n\r\n", 404, b"try /healthz /no\n"),
    ("post", b"POST /healthz HTTP/1.1\r\n\r\n", 405, b"only GET\n"),
    ("no version", b"GET /healthz\r\n\r\n", 200, b"ok\n"),
    ("one word", b"GET\r\n\r\n", 400, b"bad request\n"),
    ("garbage", b"\xff\x00\xfe\r\n\r\n", 400, b"bad request\n"),
    ("cut short", b"GET /healthz HT", 400, b"bad request\n"),
    ("too long", b"GET /" + b"x" * 20_000, 400, b"bad request\n"),
]


@pytest.mark.parametrize(("sent", "status", "body"), [r[1:] for r in REQUESTS], ids=[r[0] for r in REQUESTS])
def test_answers(sent: bytes, status: int, body: bytes) -> None:
    async def test(address: tuple[str, int]) -> None:
        head, _, got = (await talk(address, sent)).partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        if not (status == 400 and not got):
            assert got == body
        assert b"Content-Length: %d" % len(body) in head

    with_server(test)


@pytest.mark.parametrize("asked", ["127.0.0.1", "::1"])
def test_every_address_is_that_of_both_families(asked: str) -> None:
    async def test(address: tuple[str, int]) -> None:
        assert (await talk((asked, address[1]), REQUESTS[0][1])).startswith(b"HTTP/1.1 200 ")

    with_server(test, "::")


def test_silent_client_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "HEAD_S", 0.05)

    async def test(address: tuple[str, int]) -> None:
        async with asyncio.timeout(2):
            assert (await talk(address, b"")).startswith(b"HTTP/1.1 400 ")

    with_server(test)
