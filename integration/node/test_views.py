"""What the command line shows of a real node that serves Services."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from cirri.cli import service as service_command
from cirri.cli.context import RUN_DIR
from cirri.cli.root import cli
from cirri.model import Resource
from cirri.testing.node import Node, node
from cirri.testing.objects import service
from cirri.testing.wait import eventually


class Cli:
    """``cirri``, in a context of its own that leads to one node."""

    def __init__(self, here: Node) -> None:
        self.name, self.folder = here.name, RUN_DIR / here.name
        self.folder.mkdir(parents=True)
        (self.folder / "node1").symlink_to(here.run_dir)
        said = {"nats_url": here.nats.url, "bpffs": {"node1": str(here.bpffs)}, "run_dir": str(self.folder)}
        (self.folder / "context.json").write_text(json.dumps(said))

    def run(self, *words: str, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, ["--context", self.name, *words])
        assert result.exit_code == code, result.output
        return result

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "-o", "json").stdout)


@contextmanager
def command_line(here: Node) -> Iterator[Cli]:
    made = Cli(here)
    try:
        yield made
    finally:
        shutil.rmtree(made.folder)


def node_port(front: Resource, part: Resource) -> list[Resource]:
    """The Service with node ports, restricted sources and client affinity; its pods run on this node."""
    ports = [{**port, "nodePort": 30000 + port["port"]} for port in front.manifest["spec"]["ports"]]
    spec = {**front.manifest["spec"], "type": "NodePort", "ports": ports, "sessionAffinity": "ClientIP"}
    endpoints = [{**each, "nodeName": "node1"} for each in part.manifest["endpoints"]]
    return [
        replace(front, manifest={**front.manifest, "spec": spec}),
        replace(part, manifest={**part.manifest, "endpoints": endpoints}),
    ]


def leaving(part: Resource, address: str) -> Resource:
    """The slice with the endpoint at *address* terminating, while it still serves."""
    gone = {"ready": False, "serving": True, "terminating": True}
    endpoints = [
        {**each, "conditions": gone} if address in each["addresses"] else each
        for each in part.manifest["endpoints"]
    ]
    return replace(part, manifest={**part.manifest, "endpoints": endpoints})


def barred(here: Node) -> "subprocess.CompletedProcess[str]":
    """The datapath service, started where it may not use BPF."""
    words = ["setpriv", "--bounding-set=-bpf,-sys_admin", "--inh-caps=-bpf,-sys_admin"]
    words += [sys.executable, "-m", "cirri.datapath"]
    variables = {
        "NODE": "node1",
        "NATS_URL": here.nats.url,
        "STATE_DIR": str(here.state_dir),
        "RUN_DIR": str(here.home / "barred"),
        "BPFFS": str(here.bpffs),
    }
    environment = os.environ | {f"CIRRI_{name}": value for name, value in variables.items()}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_services_and_the_kernel_with_and_without_the_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with node() as here:
            with command_line(here) as cirri:
                await look(here, cirri)

    async def look(here: Node, cirri: Cli) -> None:
        pods = [await here.add(name, app="web") for name in ("one", "two")]
        front, part = node_port(*service("10.96.0.10", [pod.ipv4 for pod in pods], name="web"))
        await here.cluster.put(front)
        revision = await here.cluster.put(leaving(part, pods[1].ipv4))
        await eventually(lambda: here.ack.resources_revision >= revision, what=str(here.status))

        found = await asyncio.to_thread(cirri.json, "service", "list")
        listed = {(r["frontend"], r["protocol"], r["scope"]): r for r in found}
        kinds = {
            ("10.96.0.10:80", "TCP", "internal"): "ClusterIP",
            (f"{here.address}:30080", "TCP", "internal"): "NodePort",
            (f"{here.address}:30080", "TCP", "external"): "NodePort",
            (f"{here.address}:30081", "UDP", "external"): "NodePort",
        }
        states = [(f"{pods[0].ipv4}:8080", "active"), (f"{pods[1].ipv4}:8080", "terminating")]
        for frontend, kind in kinds.items():
            record = listed[frontend]
            assert (record["type"], record["namespace"], record["name"]) == (kind, "default", "web")
            if frontend[1] == "TCP":
                assert [(b["address"], b["state"]) for b in record["backends"]] == states
                assert record["sessionAffinitySeconds"] == 10800
        table = (await asyncio.to_thread(cirri.run, "service", "list")).stdout
        lines = [" ".join(line.split()) for line in table.splitlines()]
        assert lines[0] == "ID Frontend Service Type Backend Service"
        assert any(x.endswith(f"ClusterIP 1 => {states[0][0]}/TCP (active) default/web") for x in lines)
        assert f"2 => {states[1][0]}/TCP (terminating)" in lines
        number = listed["10.96.0.10:80", "TCP", "internal"]["id"]
        one = await asyncio.to_thread(cirri.run, "service", "get", str(number))
        assert "Service Type:     ClusterIP" in one.stdout.splitlines()

        features = {each["name"]: each for each in cirri.json("bpf", "features")[0]["features"]}
        assert features["redirect_peer"]["found"] == "yes"
        assert f"Attach Mode:  {here.status.features['attach']}" in cirri.run("bpf", "features").stdout
        assert here.status.features["xdp device"].endswith("[eth0, driver veth]")

        for what in ("nat", "affinity", "lb maglev", "ct"):
            await asyncio.to_thread(cirri.run, "bpf", *what.split(), "list")

        # The other services are not there, which is a problem; what the node says is shown all the same.
        status = await asyncio.to_thread(partial(cirri.run, "status", "--verbose", code=1))
        said = {" ".join(line.split()) for line in status.stdout.splitlines()}
        assert f"Devices: eth0 {here.address} {here.address6} (Direct Routing)" in said
        assert "Socket LB Coverage: Full" in said
        assert "- NodePort: Enabled (Range: 30000-32767)" in said
        assert f"Release: {os.uname().release}" in said
        assert "Backend Selection: Random" in said
        assert any(line.startswith("Masquerading: BPF [eth0]") for line in said)
        nodes = await asyncio.to_thread(cirri.json, "node", "list")
        assert nodes[0]["addresses"] == [here.address, here.address6]
        assert nodes[0]["podCIDRs"] == list(here.cidrs)

        here.kill()
        refused = await asyncio.to_thread(barred, here)
        assert refused.returncode == 1
        assert "does not permit what the programs need: " in refused.stderr
        assert "Run it as root, with the capabilities BPF, PERFMON and NET_ADMIN\n" in refused.stderr
        assert "Traceback" not in refused.stderr
        here.nats.close()
        monkeypatch.setattr(service_command, "BUS_S", 0.1)
        blind = await asyncio.to_thread(cirri.run, "service", "list")
        assert f"{states[0][0]}/TCP (active)" in blind.stdout
        assert "ClusterIP" not in blind.stdout
        assert "Types and names of Services are not known" in blind.stderr
        assert cirri.json("bpf", "lb", "list")

    asyncio.run(main())
