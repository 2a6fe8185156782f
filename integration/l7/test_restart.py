"""What is killed or replaced under traffic: no request fails but those that only Envoy could carry."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPException

import pytest

from cirri.l7proxy.envoy import EARLY_S, binary
from cirri.testing.proxied import Proxied, http, until
from cirri.testing.recorder import Recorder, ask, request

GUARDED, PLAIN = 8000, 8001
BACK_S = 1.0
"""Within which Envoy is to be back."""


def rules(path: str) -> str:
    return json.dumps({"any": False, "allows": [{"requests": [{"path": path}]}]})


@pytest.fixture(scope="module")
def world() -> Iterator[Proxied]:
    """Its own: here processes die.  Both are started again at once, as a service manager does."""
    with Proxied() as made:
        made.manage("l7proxy")
        made.manage("envoy", "cirri.l7proxy.envoy")
        made.publish({GUARDED: http(10300, rules("/ok"))})
        with Recorder(made.ns("s"), GUARDED), Recorder(made.ns("s"), PLAIN):
            yield made


class Load:
    """Clients that keep their connection, and clients that make a new one for each request."""

    def __init__(self, world: Proxied) -> None:
        self.world = world
        self.done, self.failed = 0, []  # type: ignore[var-annotated]
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._keep, self._keep, self._new)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        until(lambda: self.done > 20, self.world.explain)
        return self

    def __exit__(self, *_: object) -> None:
        self.more()
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int = 50) -> None:
        """Return when so many more requests have been answered."""
        wanted = self.done + count
        until(lambda: self.done >= wanted or self.failed, self.world.explain)

    def _keep(self) -> None:
        while not self._stop.is_set():
            with self._client() as client:
                while client is not None and not self._stop.is_set() and self._one(client):
                    pass

    def _new(self) -> None:
        while not self._stop.is_set():
            with self._client() as client:
                if client is not None:
                    self._one(client)

    @contextmanager
    def _client(self) -> Iterator[socket.socket | None]:
        try:
            client = self.world.connect(GUARDED)
        except OSError as error:
            self.failed.append(f"connect: {error!r}")
            time.sleep(0.05)
            yield None
            return
        with client:
            yield client

    def _one(self, client: socket.socket) -> bool:
        """Ask once; whether the connection may be used again."""
        try:
            reply = ask(client, request("/ok"))
        except (OSError, HTTPException) as error:
            self.failed.append(f"request: {error!r}")
            return False
        if reply.status != 200:
            self.failed.append(str(reply))
        self.done += 1
        return reply.headers.get("connection") != "close"


def envoy(world: Proxied) -> int:
    """The pid of the Envoy that serves; 0: none."""
    with suppress(OSError, ValueError, IndexError):
        return int(json.loads((world.run_dir / "envoy.state").read_text())[-1][0])
    return 0


def listens(world: Proxied, pid: int) -> bool:
    """Whether Envoy *pid* listens."""
    argv = ["ip", "netns", "exec", world.ns("n"), "ss", "-ltnpH"]
    return f"pid={pid}," in subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def status(world: Proxied, target: str) -> int:
    """0: no answer.  Who is not heard at once tries anew, sooner than the kernel would."""
    with suppress(OSError, HTTPException), world.connect(GUARDED, timeout_s=0.1) as client:
        client.settimeout(5)
        return ask(client, request(target)).status
    return 0


def status_is(world: Proxied, target: str, expected: int) -> bool:
    return status(world, target) == expected


def replaced(world: Proxied, name: str, before: int) -> bool:
    return world.pid(name) not in (0, before)


def test_killing_the_service_interrupts_nothing(world: Proxied) -> None:
    with Load(world) as load:
        for path in ("/one|/ok", "/two|/ok"):
            before = world.pid("l7proxy")
            os.kill(before, signal.SIGKILL)
            load.more()
            until(partial(replaced, world, "l7proxy", before), world.explain)
            world.publish({GUARDED: http(10300, rules(path))})
            until(partial(status_is, world, path.partition("|")[0], 200), world.explain)
    assert load.failed == []


def test_a_new_envoy_takes_over_without_losing_a_request(world: Proxied) -> None:
    upgrade = (("Upgrade", "websocket"), ("Connection", "Upgrade"))
    with world.connect(GUARDED) as talk, Load(world) as load:
        talk.sendall(request("/ok", headers=upgrade))
        assert talk.recv(4096).startswith(b"HTTP/1.1 101")
        before = envoy(world)
        os.kill(world.pid("envoy"), signal.SIGHUP)
        until(lambda: envoy(world) != before, world.explain)
        until(lambda: listens(world, envoy(world)), world.explain)
        load.more(200)
        talk.sendall(b"still here")
        assert talk.recv(100) == b"still here"
        # The new one does what it is told, whatever the old one still has.
        world.publish({GUARDED: http(10300, rules("/three|/ok"))})
        until(lambda: status(world, "/three") == 200, world.explain)
        assert os.path.exists(f"/proc/{before}"), "the old one has ended while it had a connection"
    assert load.failed == []
    os.kill(before, signal.SIGKILL)
    until(lambda: not os.path.exists(f"/proc/{before}"), world.explain)
    assert status(world, "/ok") == 200


def test_an_envoy_whose_forerunner_dies_is_started_afresh(world: Proxied) -> None:
    before = envoy(world)
    os.kill(world.pid("envoy"), signal.SIGHUP)
    until(lambda: envoy(world) != before, world.explain)
    waiting = envoy(world)
    os.kill(before, signal.SIGKILL)
    until(lambda: envoy(world) not in (0, waiting) and status(world, "/ok") == 200, world.explain)


def test_killing_the_keeper_leaves_envoy_alone(world: Proxied) -> None:
    running, keeper = envoy(world), world.pid("envoy")
    with Load(world) as load:
        os.kill(keeper, signal.SIGKILL)
        until(lambda: world.pid("envoy") not in (0, keeper), world.explain)
        load.more()
        assert envoy(world) == running
    assert load.failed == []
    assert status(world, "/ok") == 200


def yardstick_s() -> float:
    """How long Envoy takes to print its version: 50 ms, more on a machine that does much else."""
    began = time.monotonic()
    subprocess.run([binary(), "--version"], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


def test_without_envoy_nothing_passes_and_it_is_back_soon(world: Proxied) -> None:
    took = []
    with world.connect(PLAIN) as plain:
        assert ask(plain, request("/ok")).status == 200
        for _ in range(3):
            running = envoy(world)
            with world.connect(GUARDED) as client:
                assert ask(client, request("/ok")).status == 200
                os.kill(running, signal.SIGKILL)
                began = time.monotonic()
                with pytest.raises((OSError, HTTPException)):
                    ask(client, request("/ok"))
            until(lambda: status(world, "/ok") == 200, world.explain)
            took.append(time.monotonic() - began)
            assert envoy(world) != running
            assert ask(plain, request("/ok")).status == 200
            time.sleep(max(0.0, began + 2 * EARLY_S - time.monotonic()))  # who dies early is not put up with
    assert min(took) < max(BACK_S, 10 * yardstick_s()), took


def test_an_envoy_that_starts_alone_lets_nothing_pass(world: Proxied) -> None:
    world.stop_managing("l7proxy")
    running = envoy(world)
    os.kill(running, signal.SIGKILL)
    until(lambda: envoy(world) not in (0, running), world.explain)
    assert status(world, "/ok") == 0
    world.manage("l7proxy")
    until(lambda: status(world, "/ok") == 200, world.explain)
    assert status(world, "/no") == 403
