"""A real Prometheus, and an endpoint for it to scrape, for the length of a test."""

import asyncio
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from cirri.runtime.health import Page, serve
from cirri.testing.natsserver import free_port

DEPLOY = Path(__file__).parents[2] / "deploy"
SCRAPE_S = 0.2
WITHIN_S = 30.0

Labels = frozenset[tuple[str, str]]


class QueryFailed(Exception):
    """What Prometheus says of a query."""


class Prometheus:
    """Asked over HTTP."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self.at = ""
        """Unix time for which queries are asked; empty: now."""

    def ready(self) -> bool:
        try:
            with urlopen(f"{self._url}/-/ready", timeout=5):
                return True
        except (HTTPError, URLError, ConnectionError):
            return False

    def query(self, text: str) -> dict[Labels, float]:
        """The instant vector; what has no value (0/0) is left out.  Raises: QueryFailed."""
        found = self._ask("query", query=text, **({"time": self.at} if self.at else {}))["result"]
        if isinstance(found, list) and found and not isinstance(found[0], dict):
            return {frozenset(): float(found[1])}  # a scalar
        told = {frozenset(one["metric"].items()): float(one["value"][1]) for one in found}
        return {labels: value for labels, value in told.items() if value == value}

    def values(self, label: str, of: str) -> list[str]:
        """Of *label* in the series *of*."""
        found: list[str] = self._ask(f"label/{label}/values", **{"match[]": of})
        return found

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def _ask(self, what: str, **arguments: str) -> Any:
        try:
            with urlopen(f"{self._url}/api/v1/{what}?{urlencode(arguments)}", timeout=10) as answer:
                return json.load(answer)["data"]
        except HTTPError as error:
            raise QueryFailed(f"{arguments}: {json.load(error)['error']}") from None


@contextmanager
def prometheus(targets: Mapping[str, int]) -> Iterator[Prometheus]:
    """Scrapes *targets* (job: port), with the rules of ``deploy/prometheus``, and leaves nothing."""
    port = free_port()
    config = {
        "global": {"scrape_interval": f"{SCRAPE_S * 1000:.0f}ms", "evaluation_interval": "300ms"},
        "rule_files": [str(DEPLOY / "prometheus" / name) for name in ("rules.yaml", "alerts.yaml")],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{at}"]}]}
            for job, at in targets.items()
        ],
    }
    with TemporaryDirectory(prefix="cirri-test-prometheus-") as name:
        folder = Path(name)
        (folder / "prometheus.yaml").write_text(json.dumps(config))
        command = [
            "prometheus",
            f"--config.file={folder}/prometheus.yaml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        log = folder / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            server = Prometheus(port)
            wait(lambda: server.ready() or process.poll() is not None, "Prometheus")
            assert process.poll() is None, log.read_text()
            yield server
        finally:
            process.terminate()
            process.wait(10)


@contextmanager
def endpoint(page: Callable[[], Page]) -> Iterator[int]:
    """The port of a ``/metrics`` as services serve it; *page* is asked in a thread of its own."""
    ports: Queue[int] = Queue()

    async def listen(stop: asyncio.Event) -> None:
        server, (_, port) = await serve(("127.0.0.1", 0), {"/metrics": page})
        async with server:
            ports.put(port)
            await stop.wait()

    with asyncio.Runner() as runner:
        loop, stop = runner.get_loop(), asyncio.Event()
        thread = threading.Thread(target=lambda: runner.run(listen(stop)))
        thread.start()
        try:
            yield ports.get(timeout=WITHIN_S)
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()


def wait(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {WITHIN_S} s"
        time.sleep(0.05)
