"""What the configuration switches on and off, on real ports."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tests.flows.tables import http, row, table

from cirri.flows import outlets
from cirri.flows.outlets import Outlets
from cirri.model import Endpoint
from cirri.runtime import Runtime
from cirri.testing.natsserver import free_port
from cirri.testing.wait import eventually


class Service:
    """As much of a runtime as outlets need."""

    def __init__(self) -> None:
        self.settings = SimpleNamespace(cluster="default")
        self.metrics = CollectorRegistry()
        self.log = SimpleNamespace(warning=lambda event, **facts: None)
        self.said: dict[str, str] = {}

    def ready(self, condition: str, ok: bool, why: str = "") -> None:
        self.said[condition] = "" if ok else why


def running(work: Callable[[Outlets, Service], Awaitable[None]]) -> None:
    """Do *work* with outlets that serve."""

    async def main() -> None:
        service = Service()
        made = Outlets(cast(Runtime, service), lambda: {"ring": 1})
        serving = asyncio.ensure_future(made.run())
        try:
            await work(made, service)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            made.close()

    asyncio.run(main())


async def page(port: int) -> str:
    """What is served there; "": nothing."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return ""
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    return text


async def page_when(port: int, *, served: bool) -> str:
    """What is served there, when that is something, or nothing."""
    for _ in range(3000):
        if bool(text := await page(port)) == served:
            return text
        await asyncio.sleep(0.01)
    raise AssertionError(f"port {port} is {'not ' * served}served")


def metrics(port: int, families: str = "drop") -> dict[str, str]:
    return {"hubble-metrics": families, "hubble-metrics-server": f"127.0.0.1:{port}"}


def test_metrics_are_served_while_there_are_any() -> None:
    one, two = free_port(), free_port()

    async def work(made: Outlets, service: Service) -> None:
        assert made.configure({}) == []
        await eventually(lambda: service.said.get("metrics") == "")
        for port, other in ((one, two), (two, one)):
            assert made.configure(metrics(port)) == []
            text = await page_when(port, served=True)
            assert 'hubble_lost_events_total{source="perf_event_ring_buffer"} 1' in text
            assert await page(other) == ""
        made.configure(metrics(two, ""))
        await page_when(two, served=False)
        assert made.metrics is None

    running(work)


def test_a_port_that_is_taken_is_said_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlets, "LISTEN_S", 0.05)

    async def work(made: Outlets, service: Service) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            made.configure(metrics(port))
            await eventually(lambda: "already in use" in service.said.get("metrics", ""))
        await eventually(lambda: service.said["metrics"] == "")
        assert await page(port)

    running(work)


def test_what_is_wrong_is_told_and_the_rest_is_done(tmp_path: Path) -> None:
    async def work(made: Outlets, service: Service) -> None:
        path = tmp_path / "flows.log"
        wrong = made.configure(
            {
                "hubble-metrics": "drop nonsense",
                "hubble-metrics-server": "everywhere",
                "hubble-export-file-path": str(path),
                "hubble-flowlogs-config": "x",
                "hubble-redact-enabled": "maybe",
            }
        )
        assert [str(error).split(": ")[1] for error in wrong] == [
            "hubble-metrics",
            "hubble-metrics-server",
            "hubble-flowlogs-config",
            "hubble-redact-enabled",
        ]
        made.take(table(row()))
        assert made.exports is not None
        made.exports.close(30)
        assert path.read_text().count("\n") == 1
        said = generate_latest(service.metrics).decode()
        assert 'cirri_flows_export_written_total{export="static"} 1.0' in said

    running(work)


def endpoint(node: str, number: int, pod: str) -> Endpoint:
    return Endpoint(node=node, id=number, namespace="ns", pod=pod, container_id="", interface="")


def test_pods_that_move_keep_their_series() -> None:
    async def work(made: Outlets, service: Service) -> None:
        made.configure(metrics(free_port()))
        told: list[Any] = []
        counted = cast(
            Any, SimpleNamespace(pod_gone=lambda *pod: told.append(pod), pod_here=lambda *pod: None)
        )
        kept, made.metrics = made.metrics, counted
        made.endpoint("n1.1", endpoint("n1", 1, "moves"))
        made.endpoint("n2.9", endpoint("n2", 9, "moves"))
        made.endpoint("n1.1", None)
        assert told == []
        made.endpoint("n2.9", None)
        made.endpoint("n2.9", None)
        assert told == [("ns", "moves")]
        made.metrics = kept

    running(work)


def test_records_are_redacted() -> None:
    async def work(made: Outlets, service: Service) -> None:
        made.configure({"hubble-redact-http-urlquery": "true"})
        found = made.redacted((http("request", url="http://h/a?b=c"),))[0].http
        assert found is not None
        assert found.url == "http://h/a"

    running(work)
