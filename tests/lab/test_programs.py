"""The web sites of the lab, asked over real connections."""

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cirri.lab.programs import web


def free_port() -> int:
    with socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(params=["deathstar", "echo"])
def site(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    port = free_port()
    said, says = os.pipe()
    command = [sys.executable, "-I", "-S", str(Path(web.__file__)), request.param, "--port", str(port)]
    with subprocess.Popen([*command, "--ready-fd", str(says)], pass_fds=(says,)) as process:
        os.close(says)
        assert os.read(said, 1) == b"\n", "it did not say that it serves"
        os.close(said)
        try:
            yield request.param, port
        finally:
            process.kill()


def ask(host: str, port: int, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    connection.request(method, path, body)
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, text


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_sites(site: tuple[str, int], host: str) -> None:
    name, port = site
    expected: Any = {
        "deathstar": [
            ("POST", "/v1/request-landing", 200, "Ship landed\n"),
            ("PUT", "/v1/exhaust-port", 503, web.PANIC),
            ("GET", "/v1/request-landing", 404, "404 page not found\n"),
            ("GET", "/", 404, "404 page not found\n"),
        ],
        "echo": [],
    }[name]
    for method, path, status, text in expected:
        assert ask(host, port, method, path) == (status, text)
    if name == "deathstar":
        assert json.loads(ask(host, port, "GET", "/v1/")[1])["name"] == "Death Star"
    if name == "echo":
        said = json.loads(ask(host, port, "POST", "/a?b=c", "hello")[1])
        assert (said["method"], said["path"], said["body"]) == ("POST", "/a?b=c", "hello")
