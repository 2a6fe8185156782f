"""Questions, simulations and policies from stored flows, on a real bus."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import yaml
from click.testing import CliRunner
from tests.cli.conftest import Cli

from cirri.cli.context import RUN_DIR
from cirri.cli.root import cli
from cirri.history import Table, Verdict
from cirri.history.stream import make
from cirri.history.wire import encode
from cirri.kv import Bus
from cirri.kv.log import Limits, append
from cirri.model import FLOW_LOGS, FlowBatch, flow_subject
from cirri.runtime import Service
from cirri.runtime.permissions import Tenant, nats_config
from cirri.testing.natsserver import NatsServer
from cirri.testing.traffic import UDP, Traffic, outside, pod

TIE = pod("default/tiefighter", "10.0.0.1", {"org": "empire", "class": "tiefighter"})
XWING = pod("default/xwing", "10.0.0.2", {"org": "alliance", "class": "xwing"})
STAR = pod("default/deathstar-1", "10.0.0.3", {"class": "deathstar"}, workload="deathstar")
DNS = pod("kube-system/coredns-1", "10.0.0.9", {"k8s-app": "kube-dns"})
OTHER = pod("shop/web", "10.0.0.10")
GITHUB = outside("140.82.112.5", "api.github.com")
RULE1 = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: rule1, namespace: default}
spec:
  endpointSelector: {matchLabels: {class: deathstar}}
  ingress:
    - fromEndpoints: [{matchLabels: {org: empire}}]
      toPorts: [{ports: [{port: "80", protocol: TCP}]}]
"""


def batches(table: Table) -> Iterator[FlowBatch]:
    dropped = table.rows["verdict"] == Verdict.DROPPED
    for number, (verdict, mask) in enumerate((("forwarded", ~dropped), ("dropped", dropped)), 1):
        rows = table.rows[mask]
        yield FlowBatch(
            node=table.node,
            instance=table.instance,
            number=number,
            namespace="default",
            verdict=verdict,  # type: ignore[arg-type]
            first_ns=int(rows["time"].min()),
            last_ns=int(rows["time"].max()),
            lost={"ring": 3 * (number - 1)},
            rows=rows.tobytes(),
            ends=tuple(table.ends),
            names=tuple(table.names),
            services=tuple(table.services),
            rules=tuple(table.rules),
            l7=tuple(table.l7),
        )


async def store(bus: Bus, table: Table) -> None:
    await make(bus, {log.name: Limits(3600, 1 << 20) for log in FLOW_LOGS})
    for one in batches(table):
        subject = flow_subject(one.namespace, one.verdict, one.node)
        await append(bus.link, subject, encode(one), f"{one.instance}-{one.number}")


@pytest.fixture(scope="module")
def seen(served: Cli) -> tuple[Cli, dict[str, str]]:
    """A minute of traffic, a quarter of an hour ago; UUIDs by name."""
    traffic = Traffic(instance=7, start_ns=time.time_ns() - 900 * 10**9)
    uuids = {"landing": traffic.trace(TIE, STAR, 80)}
    traffic.now_ns += 2 * 10**9
    traffic.connection(XWING, STAR, 80)
    traffic.connection(OTHER, OTHER, 80)
    uuids["drop"] = traffic.drop(XWING, STAR, 80)
    uuids["put"] = traffic.http(TIE, STAR, "PUT", "http://deathstar/v1/exhaust-port", 503)
    traffic.trace(TIE, DNS, 53, protocol=UDP)
    traffic.dns(TIE, DNS, "api.github.com", ["140.82.112.5"])
    traffic.dns(TIE, DNS, "no.example", rcode=3)
    traffic.dns(XWING, DNS, "x\x1b[31m.example")
    traffic.connection(TIE, GITHUB, 443)
    traffic.connection(outside("203.0.113.5"), STAR, 80)

    served.service.on_bus(lambda bus: store(bus, traffic.table()))
    served.ok("apply", "-f", "-", stdin=RULE1)
    return served, {name: str(uuid) for name, uuid in uuids.items()}


ANSWERS: list[tuple[str, list[dict[str, Any]]]] = [
    ("map", [{"client": "default/xwing", "server": "default/deathstar", "connections": 1, "denied": 1}]),
    ("http-calls", [{"method": "PUT", "path": "/v1/exhaust-port", "codes": {"503": 1}}]),
    ("failing", [{"layer": "http", "problem": "HTTP 503"}, {"layer": "policy", "problem": "Policy denied"}]),
    ("dns-problems --since 1h", [{"client": "default/tiefighter", "name": "no.example"}]),
    ("interrupted", [{"client": "default/tiefighter", "timed_out": 1}]),
    ("unanswered", [{"client": "default/tiefighter", "unanswered": 1, "percent": 100.0}]),
    ("http-errors", [{"server": "*", "server_errors": 1}]),
    ("latency", [{"server": "default/deathstar", "answers": 1, "max_ms": 1.0}]),
    ("blocked", [{"client": "default/xwing", "direction": "ingress", "count": 1}]),
    ("external", [{"source": "203.0.113.5", "target": "default/deathstar", "connections": 1}]),
    ("resolved api.github.com", [{"client": "default/tiefighter", "addresses": ["140.82.112.5"]}]),
]


@pytest.mark.parametrize(("question", "wanted"), ANSWERS)
def test_each_question_is_one_command(
    seen: tuple[Cli, dict[str, str]], question: str, wanted: list[dict[str, Any]]
) -> None:
    served, _ = seen
    words = ["flows", *question.split()]
    found = json.loads(served.ok(*words, "-o", "json"))
    for one in wanted:
        assert any(one.items() <= each.items() for each in found), found
    assert "shop/web" not in json.dumps(found)
    shown = served.run(*words)
    assert shown.exit_code == 0
    assert next(iter(str(value) for value in wanted[0].values() if isinstance(value, str))) in shown.stdout
    assert "3 flows of this time are lost: the kernel's ring buffer was full" in shown.stderr


def test_nobody_outside_steers_the_terminal(seen: tuple[Cli, dict[str, str]]) -> None:
    served, _ = seen
    assert "\x1b" in json.loads(served.ok("flows", "resolved", "*", "-o", "json"))[-1]["name"]
    assert "\x1b" not in served.ok("flows", "resolved", "*")


def test_what_is_not_asked_about_is_not_told(seen: tuple[Cli, dict[str, str]]) -> None:
    served, _ = seen
    assert "Nothing of that kind was seen" in served.ok("flows", "map", "--since", "5m")
    assert "Nothing of that kind was seen" in served.ok("flows", "map", "-n", "nobody")
    assert "shop/web" in served.ok("flows", "map", "-A")
    assert "shop/web" in served.ok("flows", "map", "-n", "shop")
    assert "... and 5 more" in served.ok("flows", "map", "--limit", "1")
    assert served.run("flows", "map", "--since", "tomorrow").exit_code == 1


def test_a_tenant_asks_about_its_namespace_only() -> None:
    def config(server: NatsServer) -> str:
        people, tenants = {"cli": "cli"}, [Tenant("tenant", "tenant", ("default",))]
        flows = Service("flows", "F.", scope="node", appends=FLOW_LOGS)
        users = [(flows, "flows-n1", "flows-n1", "n1")]
        return nats_config(users, port=server.port, store_dir=server.store, people=people, tenants=tenants)

    traffic = Traffic(start_ns=time.time_ns() - 60 * 10**9)
    traffic.trace(TIE, STAR, 80)
    traffic.drop(XWING, STAR, 80)
    name = f"cirri-test-{uuid4().hex[:12]}"
    folder = RUN_DIR / name
    folder.mkdir(parents=True)
    with NatsServer(config) as server:
        asyncio.run(fill(server.url, traffic.table()))
        said = {"nats_url": server.url, "netns": "", "user": "tenant", "password": "tenant"}
        (folder / "context.json").write_text(json.dumps(said))
        own = CliRunner().invoke(cli, ["--context", name, "flows", "map"])
        others = CliRunner().invoke(cli, ["--context", name, "flows", "map", "-A"])
    shutil.rmtree(folder)
    assert own.exit_code == 0, own.output
    assert "default/tiefighter" in own.stdout
    assert "Only what was decided in default may be read" in own.stderr
    assert others.exit_code == 1


async def fill(url: str, table: Table) -> None:
    bus = await Bus.connect(url, user="flows-n1", password="flows-n1", name="flows")
    await store(bus, table)
    await bus.drain()


def test_why_it_is_blocked(seen: tuple[Cli, dict[str, str]]) -> None:
    served, _ = seen
    told = served.ok("flows", "blocked")
    assert "nearest: CiliumNetworkPolicy default/rule1 spec.ingress[0]" in told
    assert "org=empire: the peer has org=alliance" in told


def test_simulation(seen: tuple[Cli, dict[str, str]], tmp_path: Path) -> None:
    served, _ = seen
    ship = "default/xwing", "default/deathstar-1", "80/TCP"
    change = tmp_path / "rule1.yaml"
    change.write_text(RULE1.replace("org: empire", "org: alliance"))
    result = served.run("policy", "simulate", "-f", str(change), "-o", "json")
    found = json.loads(result.stdout)
    assert result.exit_code == 3
    assert [(one["client"], one["passed"]) for one in found["newlyDenied"]] == [("default/tiefighter", 1)]
    assert [(one["client"], one["server"], one["port"]) for one in found["newlyAllowed"]] == [ship]

    for word in ("cnp/rule1", "cnp/default/rule1"):
        result = served.run("policy", "simulate", "--delete", word)
        assert result.exit_code == 0
        assert "0 would be denied, 2 allowed" in result.stdout
    assert "There are: cnp/default/rule1" in served.run("policy", "simulate", "--delete", "cnp/rule2").output
    assert served.run("policy", "simulate").exit_code == 2


def test_policies_are_made_from_what_was_seen(seen: tuple[Cli, dict[str, str]], tmp_path: Path) -> None:
    served, _ = seen
    made = served.ok("policy", "generate", "--since", "1h")
    names = {one["metadata"]["name"] for one in yaml.safe_load_all(made)}
    assert names == {"seen-deathstar", "seen-tiefighter", "seen-xwing"}
    assert "matchName: api.github.com" in made
    file = tmp_path / "made.yaml"
    file.write_text(made)
    result = served.run("policy", "simulate", "-f", str(file), "--delete", "cnp/rule1", "-o", "json")
    assert json.loads(result.stdout)["newlyDenied"] == []
    said = served.run("policy", "generate").stderr
    assert "default/xwing asked DNS for 'x\\x1b[31m.example', which no rule can name" in said
    only = served.ok("policy", "generate", "--pod", "xw")
    assert [one["metadata"]["name"] for one in yaml.safe_load_all(only)] == ["seen-xwing"]
    only = served.ok("policy", "generate", "-l", "org=empire")
    assert [one["metadata"]["name"] for one in yaml.safe_load_all(only)] == ["seen-tiefighter"]
    assert served.run("policy", "generate", "-n", "nobody").stdout == ""


@pytest.mark.parametrize(
    ("name", "said", "now"),
    [
        ("drop", ["drop ingress: DROPPED (Policy denied)"], "80/TCP: DENIED"),
        ("landing", ["trace: FORWARDED"], "80/TCP: ALLOWED"),
        ("put", ["PUT /v1/exhaust-port", "l7 ingress: FORWARDED"], "80/TCP: ALLOWED"),
    ],
)
def test_a_flow_is_explained(seen: tuple[Cli, dict[str, str]], name: str, said: list[str], now: str) -> None:
    served, uuids = seen
    told = served.ok("policy", "explain", uuids[name])
    for each in (*said, now, "CiliumNetworkPolicy default/rule1"):
        assert each in told
    found = json.loads(served.ok("policy", "explain", uuids[name], "-o", "json"))
    assert found["flow"]["uuid"] == uuids[name]


def test_flows_that_cannot_be_explained(seen: tuple[Cli, dict[str, str]]) -> None:
    served, uuids = seen
    assert "is kept" in served.run("policy", "explain", "00000000-0000-0001-0000-000000000001").output
    assert "is not the UUID" in served.run("policy", "explain", "x").output
    assert served.run("policy", "explain", uuids["drop"], "--port", "80").exit_code == 2
    msgspec.json.encode(uuids)
