"""The life of a service process: start, death, leadership, answers, exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cirri.kv import Bus, RequestFailed
from cirri.model import IDENTITIES
from cirri.testing.natsserver import NatsServer

SAMPLE = Path(__file__).with_name("sample_service.py")


class Process:
    """A sample service that runs."""

    def __init__(self, run_dir: Path, name: str = "sample", scope: str = "cluster", **env: str) -> None:
        self.name, self.run_dir = name, run_dir
        self.err = run_dir / f"{name}-{time.monotonic_ns()}.err"
        with self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", str(SAMPLE), name, scope],
                stderr=err,
                env={**os.environ, "CIRRI_RUN_DIR": str(run_dir), **env},
            )

    def logs(self) -> list[dict[str, Any]]:
        lines = self.err.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def said(self, event: str) -> bool:
        return any(line["event"] == event for line in self.logs())

    def get(self, page: str) -> tuple[int, str]:
        try:
            address = (self.run_dir / f"{self.name}.http").read_text().strip()
            with urllib.request.urlopen(f"http://{address}{page}", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def ready(self) -> bool:
        return self.process.poll() is None and self.get("/readyz")[0] == 200

    def end(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Exit code, and seconds until the process was gone."""
        began = time.monotonic()
        self.process.send_signal(how)
        return self.process.wait(5), time.monotonic() - began


def until(holds: Callable[[], object], within_s: float = 8.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start sample services; those that are left are killed."""
    made: list[Process] = []

    def begin(name: str = "sample", scope: str = "cluster", **env: str) -> Process:
        made.append(Process(tmp_path, name, scope, **env))
        return made[-1]

    yield begin
    for each in made:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait(5)


def ask(url: str, subject: str, payload: bytes = b"") -> bytes:
    async def main() -> bytes:
        bus = await Bus.connect(url, name="test")
        try:
            return await bus.request(subject, payload)
        finally:
            await bus.drain()

    return asyncio.run(main())


def test_serves_answers_and_stops(nats: NatsServer, start: Start) -> None:
    service = start(CIRRI_NATS_URL=nats.url)
    until(service.ready)
    assert service.get("/healthz") == (200, "ok\n")
    body = json.loads(service.get("/readyz")[1])
    names = {c["name"] for c in body["conditions"]}
    assert names == {"bus", "leader", "sample", "read identities", "write identities"}
    metrics = service.get("/metrics")[1]
    assert 'cirri_sample_table_keys{bucket="identities",pattern=">"} 1.0' in metrics
    assert "cirri_sample_bus_connected 1.0" in metrics
    assert service.get("/else")[0] == 404
    assert ask(nats.url, "cirri.sample.echo", b"abc") == b"abc"
    with pytest.raises(RequestFailed, match=r"^not today$") as refused:
        ask(nats.url, "cirri.sample.refuse")
    with pytest.raises(RequestFailed, match="a defect") as failed:
        ask(nats.url, "cirri.sample.fail")
    assert (refused.value.code, failed.value.code) == (400, 500)
    ping = json.loads(ask(nats.url, "$SRV.PING"))
    assert (ping["type"], ping["name"]) == ("io.nats.micro.v1.ping_response", "sample")
    assert ping["metadata"]["ready"] == "yes"
    info = json.loads(ask(nats.url, "$SRV.INFO.sample"))
    assert {e["subject"] for e in info["endpoints"]} == {
        f"cirri.sample.{n}" for n in ("echo", "refuse", "fail")
    }
    stats = json.loads(ask(nats.url, f"$SRV.STATS.sample.{ping['id']}"))
    counts = {e["name"]: (e["num_requests"], e["num_errors"]) for e in stats["endpoints"]}
    assert counts == {"echo": (1, 0), "refuse": (1, 1), "fail": (1, 1)}
    code, took = service.end()
    assert code == 0
    assert took < 2
    assert not (service.run_dir / "sample.http").exists()
    assert all({"time", "level", "event", "service"} <= line.keys() for line in service.logs())


def test_lives_without_a_bus(start: Start) -> None:
    server = NatsServer()
    try:
        service = start("sample", "node", CIRRI_NATS_URL=server.url, CIRRI_NODE="n1.example")
        until(lambda: service.said("serving"))
        status, body = service.get("/readyz")
        failing = {c["name"]: c["why"] for c in json.loads(body)["conditions"] if not c["ok"]}
        assert status == 503
        assert failing.keys() == {"bus", "sample", "read nodes", "write nodes"}
        assert "no connection to the bus" in failing["bus"]
        server.start()
        until(service.ready)
        server.restart(keep=False)
        until(lambda: not service.ready() or service.said("the store lost state, writing it again"))
        until(service.ready)
        assert ask(server.url, "cirri.sample.n1=2Eexample.echo", b"x") == b"x"
        assert service.end()[0] == 0
    finally:
        server.close()


def test_useful_again_within_a_second_of_its_death(nats: NatsServer, start: Start) -> None:
    service = start(CIRRI_NATS_URL=nats.url)
    until(service.ready)
    took = []
    for _ in range(3):  # the best of three: the machine is shared
        assert service.end(signal.SIGKILL)[0] == -signal.SIGKILL
        began = time.monotonic()
        service = start(CIRRI_NATS_URL=nats.url)
        until(service.ready)
        took.append(time.monotonic() - began)
    assert min(took) < 1.0


def test_one_leads_and_another_follows(nats: NatsServer, start: Start) -> None:
    first = start(CIRRI_NATS_URL=nats.url, CIRRI_INSTANCE="one")
    until(lambda: first.said("leading"))
    second = start(CIRRI_NATS_URL=nats.url, CIRRI_INSTANCE="two")
    until(lambda: second.said("started"))
    time.sleep(0.3)
    assert not second.said("leading")
    first.end(signal.SIGKILL)
    until(lambda: second.said("serving"))

    async def published() -> str:
        bus = await Bus.connect(nats.url)
        try:
            async with bus.table(IDENTITIES) as table:
                async for _ in table.changes():
                    if table["1"].labels == ("two",):
                        return "two"
        finally:
            await bus.drain()
        return ""

    assert asyncio.run(asyncio.wait_for(published(), 5)) == "two"
    again = start(CIRRI_NATS_URL=nats.url, CIRRI_INSTANCE="one")
    until(lambda: again.said("started"))
    assert second.end()[0] == 0  # leaves its lease, so nobody waits for it to run out
    until(lambda: again.said("serving"), within_s=1.5)


@pytest.mark.parametrize(
    ("what", "last_line"),
    [
        ("crash", "cirri-sample: the disk is full"),
        ("defect", "cirri-sample: a defect"),
        (
            "contract",
            "cirri-sample: the contract of sample does not let it read bucket resources. Declare it in the "
            "service's SERVICE, from which permissions and tables are derived",
        ),
    ],
)
def test_failure_is_the_last_line(nats: NatsServer, start: Start, what: str, last_line: str) -> None:
    service = start("sample", "node", CIRRI_NATS_URL=nats.url, SAMPLE=what)
    assert service.process.wait(8) == 1
    lines = service.err.read_text().splitlines()
    assert last_line in lines[-2:]
    assert ("Traceback" in service.err.read_text()) is (what == "defect")


def test_end_of_serve_is_the_end(nats: NatsServer, start: Start) -> None:
    for scope in ("node", "cluster"):
        service = start("sample", scope, CIRRI_NATS_URL=nats.url, SAMPLE="end")
        assert service.process.wait(8) == 0


def test_service_that_does_not_stop_is_stopped(nats: NatsServer, start: Start) -> None:
    service = start("sample", "node", CIRRI_NATS_URL=nats.url, SAMPLE="stubborn")
    until(lambda: service.said("started"))
    code, took = service.end()
    assert code == 1
    assert took < 2.0


def test_settings_are_refused_together(start: Start) -> None:
    service = start(CIRRI_HTTP="nowhere", CIRRI_LOG_LEVEL="loud", CIRRI_NATS_URL="http://x")
    assert service.process.wait(8) == 1
    assert service.err.read_text() == (
        "cirri-sample: settings: CIRRI_HTTP must be HOST:PORT, not 'nowhere'; CIRRI_LOG_LEVEL must be one of "
        "debug, info, warning, error, not 'loud'; CIRRI_NATS_URL must start with nats:// or tls://, not "
        "'http://x'\n"
    )


def test_taken_port_is_a_sentence(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        service = start(CIRRI_HTTP=f"127.0.0.1:{taken.getsockname()[1]}")
        assert service.process.wait(8) == 1
    assert "cannot serve HTTP on" in service.err.read_text().splitlines()[-1]


def test_start_is_light(start: Start) -> None:
    """What a service imports before it serves: no HTTP exposition, no aiohttp, no structlog, no rich."""
    code = (
        "import sys, cirri.runtime, cirri.kv, cirri.reconcile;"
        "heavy = 'prometheus_client', 'aiohttp', 'structlog', 'rich', 'http.server';"
        "print(*(m for m in heavy if m in sys.modules))"
    )
    heavy = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert heavy.strip() == ""


def test_memory_of_an_idle_service(nats: NatsServer, start: Start) -> None:
    service = start(CIRRI_NATS_URL=nats.url)
    until(service.ready)
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    resident_kib = int(status.split("VmRSS:")[1].split()[0])
    assert resident_kib < 40_000
