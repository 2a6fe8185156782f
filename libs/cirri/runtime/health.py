"""What a service says about itself: readiness and metrics, over HTTP."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import msgspec

HEAD_LIMIT, HEAD_S = 8192, 2.0
"""Bytes of a request's head, and seconds it may take."""

REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Not Ready"}


class Condition(NamedTuple):
    """One thing that must hold for the service to be ready."""

    name: str
    ok: bool
    why: str = ""


class Page(NamedTuple):
    """An answer over HTTP."""

    status: int
    body: bytes
    kind: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


def readiness(conditions: list[Condition]) -> Page:
    """``/readyz``: 200 if all hold, 503 otherwise; JSON with each condition and why it fails."""
    ready = all(c.ok for c in conditions)
    body = {
        "ready": ready,
        "conditions": [{"name": c.name, "ok": c.ok, "why": c.why} for c in conditions],
    }
    return Page(200 if ready else 503, msgspec.json.encode(body), "application/json")


async def serve_everywhere(port: int, pages: dict[str, Callable[[], Page]]) -> asyncio.Server:
    """Answer on *port* of every address of this machine.  Raises: OSError."""
    try:
        server, _ = await serve(("", port), pages)
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise
        server, _ = await serve(("0.0.0.0", port), pages)  # noqa: S104 - a machine without IPv6
    return server


async def serve(
    address: tuple[str, int], pages: dict[str, Callable[[], Page]]
) -> tuple[asyncio.Server, tuple[str, int]]:
    """Answer GET requests for *pages*; returns the server and the address it got."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        page = Page(400, b"bad request\n")
        try:
            async with asyncio.timeout(HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
            method, target, *_ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
            make = pages.get(target.split("?")[0])
            if method not in ("GET", "HEAD"):
                page = Page(405, b"only GET\n")
            elif make is None:
                page = Page(404, ("try " + " ".join(pages) + "\n").encode())
            else:
                page = make()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, ValueError, OSError):
            pass
        with suppress(OSError):
            more = "".join(f"{name}: {value}\r\n" for name, value in page.headers)
            writer.write(
                f"HTTP/1.1 {page.status} {REASONS[page.status]}\r\nContent-Type: {page.kind}\r\n{more}"
                f"Content-Length: {len(page.body)}\r\nConnection: close\r\n\r\n".encode()
                + page.body
            )
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    if address[0] == "::":  # probes come by either family; asyncio would open it for IPv6 alone
        both = socket.create_server(address, family=socket.AF_INET6, dualstack_ipv6=True)
        server = await asyncio.start_server(answer, sock=both, limit=HEAD_LIMIT)
    else:
        server = await asyncio.start_server(answer, *address, limit=HEAD_LIMIT)
    host, port, *_ = server.sockets[0].getsockname()
    return server, (host, port)
