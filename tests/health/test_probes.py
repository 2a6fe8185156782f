"""The two questions, over the loopback."""

import asyncio
import socket
from contextlib import suppress

import pytest

from cirri.health.probes import Pinger, checksum, hello
from cirri.runtime.health import Page, serve_everywhere

PATIENCE_S = 20.0
"""For what answers."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0:0:0:0:0:0:0:1"])
def test_echo(address: str) -> None:
    async def work() -> None:
        pinger = Pinger()
        try:
            answers = await asyncio.gather(*(pinger.ping(address, PATIENCE_S) for _ in range(50)))
        finally:
            pinger.close()
        assert all(not each.error and 0 < each.rtt_s < PATIENCE_S for each in answers), answers

    asyncio.run(work())


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("240.0.0.1", ""),
        ("2001:db8::1", ""),
        ("255.255.255.255", "permission denied"),
        ("x", "does not appear"),
    ],
)
def test_nobody_replies(address: str, error: str) -> None:
    async def work() -> None:
        pinger = Pinger()
        try:
            answer = await pinger.ping(address, 0.05)
        finally:
            pinger.close()
        assert answer.error
        assert error in answer.error

    asyncio.run(work())


def test_hello() -> None:
    async def work() -> None:
        port = free_port()
        pages = {"/hello": lambda: Page(200, b"ok\n")}
        server = await serve_everywhere(port, pages)
        for address in ("127.0.0.1", "::1"):
            answer = await hello(address, port, PATIENCE_S)
            assert not answer.error, answer
            assert answer.rtt_s > 0
        del pages["/hello"]
        assert (await hello("127.0.0.1", port, PATIENCE_S)).error == "answers with status 404"
        server.close()
        await server.wait_closed()
        assert (await hello("127.0.0.1", port, PATIENCE_S)).error == "connection refused"

    asyncio.run(work())


def test_who_accepts_and_says_nothing_or_nonsense() -> None:
    async def work() -> None:
        words = b""
        handlers = []

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            handlers.append(asyncio.current_task())
            writer.write(words)
            with suppress(ConnectionError):
                await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        assert (await hello("127.0.0.1", port, 0.05)).error == "no answer in 0.05 s"
        words = b"SSH-2.0-x\r\n"
        assert (await hello("127.0.0.1", port, PATIENCE_S)).error == "what answers does not speak HTTP"
        await asyncio.gather(*filter(None, handlers))
        server.close()

    asyncio.run(work())


@pytest.mark.parametrize(
    ("data", "sum_"), [(b"\x08\0\0\0\0\0\0\0", 0xF7FF), (b"\xff\xff\x00\x01", 0xFFFE), (b"\0\0", 0xFFFF)]
)
def test_checksum(data: bytes, sum_: int) -> None:
    assert checksum(data) == sum_
