"""Small web sites.  One file that needs the standard library alone: ``python -I -S web.py SITE``.

SITE is ``deathstar`` (the API of the Star Wars demo) or ``echo`` (answers every request with a
description of it, as JSON).  Serves IPv4 and IPv6;
``--ready-fd N`` gets a byte once connections are accepted.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
from collections.abc import Callable
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Reply(NamedTuple):
    """What a site answers."""

    status: int
    body: str
    content_type: str = "text/plain; charset=utf-8"


Site = Callable[[str, str, Message, bytes], Reply]
"""(method, path, headers, body) -> Reply."""

PANIC = """Panic: deathstar exploded

goroutine 1 [running]:
main.HandleGarbage(0x2080c3f50, 0x2, 0x4, 0x425c0, 0x5, 0xa)
        /code/src/github.com/empire/deathstar/
        temp/main.go:9 +0x64
main.main()
        /code/src/github.com/empire/deathstar/
        temp/main.go:5 +0x85
"""
STATION = {
    "name": "Death Star",
    "model": "DS-1 Orbital Battle Station",
    "manufacturer": "Imperial Department of Military Research, Sienar Fleet Systems",
    "cost_in_credits": "1000000000000",
    "length": "120000",
    "crew": "342953",
    "passengers": "843342",
    "cargo_capacity": "1000000000000",
    "hyperdrive_rating": "4.0",
    "starship_class": "Deep Space Mobile Battlestation",
    "api": ["GET   /v1", "POST  /v1/request-landing", "PUT   /v1/exhaust-port"],
}


def _json(status: int, value: object) -> Reply:
    return Reply(status, json.dumps(value, indent=2) + "\n", "application/json")


def deathstar(method: str, path: str, headers: Message, body: bytes) -> Reply:
    """The landing service of the demo."""
    del headers, body
    match method, path.partition("?")[0]:
        case "GET" | "HEAD", "/v1" | "/v1/":
            return _json(200, {**STATION, "hostname": socket.gethostname()})
        case "POST", "/v1/request-landing":
            return Reply(200, "Ship landed\n")
        case "PUT", "/v1/exhaust-port":
            return Reply(503, PANIC)
    return Reply(404, "404 page not found\n")


def echo(method: str, path: str, headers: Message, body: bytes) -> Reply:
    """The request, as JSON."""
    return _json(
        200,
        {
            "hostname": socket.gethostname(),
            "method": method,
            "path": path,
            "headers": {name.lower(): value for name, value in headers.items()},
            "body": body.decode(errors="replace"),
        },
    )


SITES: dict[str, Site] = {"deathstar": deathstar, "echo": echo}


def handler(site: Site) -> type[BaseHTTPRequestHandler]:
    """A request handler that serves *site* and says nothing."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "cirri-lab"
        disable_nagle_algorithm = True

        def answer(self) -> None:
            length = self.headers.get("content-length", "0")
            body = self.rfile.read(int(length) if length.isdecimal() else 0)
            reply = site(self.command, self.path, self.headers, body)
            payload = reply.body.encode()
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(payload)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = answer  # noqa: N815

        def log_message(self, *args: object) -> None:
            """A pod's log is not the place for a load test."""

    return Handler


class Server(ThreadingHTTPServer):
    """Both families on one socket."""

    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 1024

    def server_bind(self) -> None:
        """Bind without asking DNS for the machine's own name."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = socket.gethostname(), self.server_address[1]

    def handle_error(self, *args: object) -> None:
        """Clients that hang up are no event."""


def main() -> None:
    """Serve one site until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("site", choices=sorted(SITES))
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("--ready-fd", type=int, default=-1)
    options = parser.parse_args()
    with Server(("::", options.port), handler(SITES[options.site])) as server:
        if options.ready_fd >= 0:
            os.write(options.ready_fd, b"\n")
            os.close(options.ready_fd)
        server.serve_forever()


if __name__ == "__main__":
    main()
