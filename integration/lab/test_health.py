"""Nodes that are cut off are reported, whatever cuts them, and come back."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cirri.testing.lab import Lab

INTERVAL_S = 0.5
"""What is lost is reported after three of them; by default that is 30 s."""
README = Path(__file__).parents[2] / "services/cirri/health/README.md"
CLOSED = """
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: closed}
spec:
  nodeSelector: {}
  ingress: [{fromEntities: [remote-node], toPorts: [{ports: [{port: "22", protocol: TCP}]}]}]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    config = tmp_path_factory.mktemp("health") / "config.yaml"
    config.write_text(
        f'cluster-health-interval: {INTERVAL_S}s\nenable-host-firewall: "true"\ncluster-health-port: "4241"\n'
    )
    with Lab(2, f"test-{os.getpid()}-health", "--config", str(config), "--without", "flows") as running:
        running.wait(lambda: seen(running)["summary"] == "2/2 reachable", what="2/2 reachable")
        yield running


def seen(lab: Lab) -> dict[str, Any]:
    """``cirri health status -o json``."""
    found: dict[str, Any] = json.loads(lab.cirri("health", "status", "-o", "json", check=False).stdout)
    return found


def states(view: dict[str, Any], field: str = "state") -> dict[tuple[str, str], str]:
    """(address, probe) -> state, or another *field*, as one node sees the other."""
    return {(p["address"], p["probe"]): p[field] for peer in view["peers"] for p in peer["paths"]}


def test_both_families_both_ways(lab: Lab) -> None:
    addresses = {
        "node1": ("192.168.3.12", "fd00:192:168:3::c"),
        "node2": ("192.168.3.11", "fd00:192:168:3::b"),
    }
    wanted = {
        viewer: {(address, probe): "reachable" for address in others for probe in ("icmp", "http")}
        for viewer, others in addresses.items()
    }
    lab.wait(
        lambda: {view["node"]: states(view) for view in seen(lab)["views"]} == wanted, what="all reachable"
    )
    assert "Cluster health: 2/2 reachable" in lab.cirri("status").stdout
    assert lab.on("client", "curl", "-s", "http://192.168.3.11:4241/hello").stdout == "ok\n"
    address = Path("/run/cirri", lab.name, "node1", "health.http").read_text().strip()
    metrics = lab.on("node1", "curl", "-s", f"http://{address}/metrics").stdout
    assert "cirri_health_unreachable_nodes 0.0\n" in metrics
    labels = '{address="192.168.3.12",probe="icmp",target_node="node2"}'
    assert f"cirri_health_node_connectivity_status{labels} 1.0\n" in metrics


def test_a_node_that_is_cut_off(lab: Lab) -> None:
    try:
        lab.on("fabric", "ip", "link", "set", "node2", "down")
        lab.wait(lambda: seen(lab)["summary"] == "1/2 reachable", what="1/2 reachable")
        done = lab.cirri("status", check=False)
        assert done.returncode == 1
        assert "Cluster health: 1/2 reachable" in done.stdout
        assert re.search(
            r"node1 cannot reach node2 since 2\S+Z: 192.168.3.12 by ICMP: no reply in", done.stdout
        )
        assert "node2 cannot reach node1" not in done.stdout, "nobody has heard that"
    finally:
        lab.on("fabric", "ip", "link", "set", "node2", "up")
    lab.wait(lambda: seen(lab)["summary"] == "2/2 reachable", what="2/2 reachable again")
    # It went on without the bus, and says now that it sees again.
    lab.wait(lambda: set(states(seen(lab)["views"][1]).values()) == {"reachable"}, what="node2 sees node1")


def test_a_policy_that_drops_probes_is_seen_and_the_documented_rule_lets_them_pass(lab: Lab) -> None:
    found = re.search(r"```yaml\n(.*?)```", README.read_text(), re.S)
    assert found is not None
    lab.cirri("apply", "-f", "-", "--no-confirm", "--wait", stdin=CLOSED)
    lab.wait(lambda: seen(lab)["summary"] == "0/2 reachable", what="0/2 reachable")
    lab.cirri("apply", "-f", "-", "--no-confirm", "--wait", stdin=found[1].replace("4240", "4241"))
    lab.wait(lambda: seen(lab)["summary"] == "2/2 reachable", what="2/2 reachable by rule")


def test_a_service_that_is_killed_knows_what_it_knew(lab: Lab) -> None:
    before = states(seen(lab)["views"][0], "since")
    os.kill(lab.pids()["health-node1"], 9)
    lab.wait(lambda: not lab.cirri("status", check=False).returncode, what="status OK")
    assert states(seen(lab)["views"][0], "since") == before
