"""The bus as the chart configures it: three real servers, TLS everywhere, a password for each service."""

import asyncio
import base64
import json
import os
import random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cirri.kv import Bus, BusError, BusUnavailable
from cirri.model import RESOURCES
from cirri.testing.natsserver import NatsServer, free_port
from cirri.testing.rendering import Manifest, of, pods, render
from cirri.testing.wait import eventually

SERVERS = 3


class Cluster:
    """The chart's objects, and its servers on addresses of the loopback instead of nodes."""

    def __init__(self, home: Path) -> None:
        network = f"127.{random.randint(1, 250)}.{random.randint(0, 250)}"
        self.hosts = [f"{network}.{number}" for number in range(1, SERVERS + 1)]
        self.ports = {"port": free_port(), "clusterPort": free_port()}
        self.made: list[Manifest] = render({"nats": {"hosts": self.hosts, **self.ports}})
        self.secrets = {m["metadata"]["name"]: m for m in of(self.made, "Secret")}
        self.home = home
        for name in ("ca.crt", "tls.crt", "tls.key"):
            (home / name).write_bytes(base64.b64decode(self.secrets["cirri-nats-tls"]["data"][name]))

    def config(self, number: int, server: NatsServer) -> str:
        """The chart's file, but for its folders, and for addresses: here servers share a machine."""
        text: str = self.secrets["cirri-nats-config"]["stringData"]["nats.conf"]
        host = self.hosts[number]
        for old, new in (
            ("/etc/nats/tls", str(self.home)),
            ("/data", str(server.store)),
            ("$POD_NAME", f"cirri-nats-{number}"),
            ('http: "127.0.0.1:8222"', f'http: "{host}:0"'),
            ("port: ", f'host: "{host}"\nport: '),
        ):
            assert old in text
            text = text.replace(old, new)
        server.host, server.port = host, self.ports["port"]
        return text

    def environment(self, service: str) -> dict[str, str]:
        """What the service's container gets, with what Kubernetes would put in for references."""
        (container,) = (c for c in pods(self.made)[f"cirri-{service}"]["containers"] if c["name"] == service)
        found = {each["name"]: each.get("value", "") for each in container["env"]}
        return found | {
            "CIRRI_NATS_PASSWORD": self.password(service),
            "CIRRI_NATS_CA": str(self.home / "ca.crt"),
            "CIRRI_INSTANCE": "one",
            "CIRRI_NODE": "node1",
            "CIRRI_HTTP": "127.0.0.1:0",
            "CIRRI_RUN_DIR": str(self.home),
            "CIRRI_STATE_DIR": str(self.home),
        }

    def password(self, user: str) -> str:
        return base64.b64decode(self.secrets[f"cirri-nats-{user}"]["data"]["password"]).decode()

    async def bus(self, user: str, **other: Any) -> Bus:
        url = self.environment("identity")["CIRRI_NATS_URL"]
        given: dict[str, Any] = {
            "password": self.password(user),
            "ca": self.home / "ca.crt",
            "timeout_s": 20.0,
        } | other
        return await Bus.connect(url, user=user, name="test", **given)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[Cluster, list[NatsServer]]]:
    made = Cluster(tmp_path)
    with ExitStack() as stack:
        servers = [stack.enter_context(NatsServer(partial(made.config, number))) for number in range(SERVERS)]
        yield made, servers


async def about(bus: Bus, stream: str) -> dict[str, Any]:
    """What JetStream says of *stream*."""
    with suppress(BusError):
        found: dict[str, Any] = json.loads(await bus.request(f"$JS.API.STREAM.INFO.{stream}"))
        return found
    return {}


async def pages(home: Path, process: subprocess.Popen[bytes], page: str) -> None:
    def answers() -> bool:
        assert process.poll() is None, "it has ended"
        with suppress(OSError):
            address = (home / "kubernetes.http").read_text().strip()
            with urllib.request.urlopen(f"http://{address}{page}", timeout=2) as answer:
                return bool(answer.status == 200)
        return False

    await eventually(answers, within_s=60, what=page)


def test_a_service_and_the_loss_of_a_server(cluster: tuple[Cluster, list[NatsServer]]) -> None:
    made, servers = cluster

    async def main(process: subprocess.Popen[bytes]) -> None:
        await pages(made.home, process, "/readyz")
        bus = await made.bus("kubernetes")
        info: dict[str, Any] = {}
        async with asyncio.timeout(60):
            while len(info.get("cluster", {}).get("replicas", ())) < SERVERS - 1:
                info = await about(bus, "KV_resources")
                await asyncio.sleep(0.1)
        assert info["config"]["num_replicas"] == SERVERS
        kept = [entry.value for entry in await bus.entries(RESOURCES)]
        assert kept, "what every cluster has"
        servers[int(info["cluster"]["leader"].removeprefix("cirri-nats-"))].kill()
        # The two that are left have it, and take what is new.
        async with asyncio.timeout(60):
            while True:
                with suppress(BusError):
                    assert [entry.value for entry in await bus.entries(RESOURCES)] == kept
                    await bus.put(RESOURCES, kept[0])
                    break
                await asyncio.sleep(0.2)
        await pages(made.home, process, "/readyz")
        await bus.drain()

    env = {**os.environ, **made.environment("kubernetes")}
    with subprocess.Popen([sys.executable, "-m", "cirri.kubernetes"], env=env) as process:
        try:
            asyncio.run(main(process))
        finally:
            process.terminate()
    assert process.returncode == 0


def test_who_may_not(cluster: tuple[Cluster, list[NatsServer]]) -> None:
    made, _ = cluster

    async def main() -> None:
        for wrong in ({"password": "guessed", "timeout_s": 1.0}, {"ca": None, "timeout_s": 1.0}):
            with pytest.raises(BusUnavailable):
                await made.bus("identity", **wrong)
        health = await made.bus("health")
        with pytest.raises(BusError):
            await health.request("$JS.API.STREAM.DELETE.KV_identities", timeout_s=2)
        with pytest.raises(BusError):
            await health.request("$KV.identities.1", b"x", timeout_s=2)
        await health.drain()

    asyncio.run(main())
