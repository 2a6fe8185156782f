"""A cluster whose network does not know the pods: packets between nodes take tunnels.

The router's routes to pod ranges are taken away, and the mode is switched while connections live.
"""

import json
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cirri.testing.lab import CIRRI, Lab

NODE2 = ("192.168.3.12", "fd00:192:168:3::c")
PODS = "".join(
    f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  containers: [{{name: main, image: pause}}]
---"""
    for name, node in (("near", "node1"), ("far", "node2"))
)
POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: far}
spec:
  endpointSelector: {matchLabels: {app: far}}
  ingress: [{fromEndpoints: [{matchLabels: {app: near}}]}]
"""
HOST_POLICY = """
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: nodes}
spec:
  nodeSelector: {}
  ingress: [{fromEntities: [cluster]}]
  egress: [{toEntities: [cluster]}]
"""


def configuration(**data: str) -> str:
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cirri-config", "namespace": "kube-system"},
        "data": {key.replace("_", "-"): value for key, value in data.items()},
    }
    return json.dumps(manifest)


@pytest.fixture(scope="module")
def tunnel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file = Path(tmp_path_factory.mktemp("lab"), "config.yaml")
    file.write_text("routing-mode: tunnel\ntunnel-port: 8473\n")
    with Lab(2, f"test-{os.getpid()}-tunnel", "--config", str(file), "--without", "flows") as lab:
        lab.apply(PODS)
        yield lab


def addresses(lab: Lab, name: str) -> list[str]:
    """IPv4 and IPv6 address of a pod."""
    return [each["ip"] for each in lab.get("pod", name)["status"]["podIPs"]]


def ping(lab: Lab, pod: str, address: str, *options: str) -> bool:
    return lab.exec(pod, "ping", "-c1", "-W2", *options, address).returncode == 0


def device(lab: Lab, node: str = "node1") -> dict[str, Any]:
    """The tunnel's device as it is; {} if there is none."""
    said = lab.on(node, "ip", "-j", "-d", "-s", "link", "show", "dev", "cirri_vxlan")
    return json.loads(said.stdout)[0] if said.returncode == 0 else {}


def sent_by_the_device(lab: Lab) -> int:
    """Packets so far; what pods send is put into tunnels by programs, what the node sends is not."""
    return int(device(lab)["stats64"]["tx"]["packets"])


def test_pods_and_nodes_reach_each_other_by_the_tunnel(tunnel: Lab) -> None:
    assert device(tunnel)["linkinfo"]["info_data"]["port"] == 8473
    before = sent_by_the_device(tunnel)
    for near, far, node2 in zip(addresses(tunnel, "near"), addresses(tunnel, "far"), NODE2, strict=True):
        assert ping(tunnel, "near", far)
        assert ping(tunnel, "far", near)
        assert ping(tunnel, "near", far, "-s", "3000")
        assert ping(tunnel, "near", node2)
        assert tunnel.on("node2", "ping", "-c1", "-W2", near).returncode == 0
    assert sent_by_the_device(tunnel) == before
    for far in addresses(tunnel, "far"):
        assert tunnel.on("node1", "ping", "-c1", "-W2", far).returncode == 0
        assert tunnel.on("node1", "ping", "-c1", "-W2", "-s", "3000", far).returncode == 0
    assert sent_by_the_device(tunnel) >= before + 2 * (1 + 3)


def test_what_is_said_of_it(tunnel: Lab) -> None:
    assert "Routing:       Tunnel [vxlan, port 8473, cirri_vxlan]" in tunnel.cirri("status").stdout
    assert re.search(r"routing-mode +tunnel", tunnel.cirri("config", "view").stdout)
    (found,) = json.loads(tunnel.cirri("bpf", "tunnel", "list", "--node", "node1", "-o", "json").stdout)
    assert found["tunnelTo"] == NODE2[0]
    assert len(found["podCIDRs"]) == 2
    links = json.loads(tunnel.exec("near", "ip", "-j", "link", "show", "dev", "eth0").stdout)
    assert links[0]["mtu"] == device(tunnel)["mtu"] == 1450


def test_policy_knows_the_sender(tunnel: Lab) -> None:
    far4, far6 = addresses(tunnel, "far")
    tunnel.apply(POLICY)
    try:
        assert ping(tunnel, "near", far4)
        assert ping(tunnel, "near", far6)
        assert tunnel.on("node1", "ping", "-c1", "-W1", far4).returncode, "another node may not"
        assert tunnel.on("node1", "ping", "-c1", "-W1", far6).returncode
    finally:
        tunnel.delete("cnp", "far")
    assert tunnel.on("node1", "ping", "-c1", "-W2", far4).returncode == 0


def test_tunnels_pass_the_host_firewall(tunnel: Lab) -> None:
    """Between nodes nothing is let but what the policy says; the tunnel is built in."""
    far4, far6 = addresses(tunnel, "far")
    data = {"routing_mode": "tunnel", "tunnel_port": "8473"}
    closed = HOST_POLICY.replace("fromEntities: [cluster]", "fromEntities: [health]")
    closed = closed.replace("toEntities: [cluster]", "toEntities: [health]")
    tunnel.apply(closed)
    tunnel.apply(configuration(**data, enable_host_firewall="true"))
    try:
        tunnel.wait(
            lambda: tunnel.on("node1", "ping", "-c1", "-W1", NODE2[0]).returncode, what="the firewall closes"
        )
        before = sent_by_the_device(tunnel)
        assert ping(tunnel, "near", far4)
        assert ping(tunnel, "near", far6)
        assert sent_by_the_device(tunnel) == before + 2
        listed = ("bpf", "policy", "list", "--node", "node1")
        tunnel.wait(lambda: "allow-overlay" in tunnel.cirri(*listed).stdout, what="the rule has its name")
    finally:
        tunnel.apply(configuration(**data))
        tunnel.delete("ccnp", "nodes")


def test_the_mode_is_switched_while_everything_runs(tunnel: Lab) -> None:
    """Packets under way between two nodes of different modes may be lost, connections are not."""
    pids = {name: pid for name, pid in tunnel.pids().items() if name.startswith("datapath")}
    for mode, mtu in (("native", 1500), ("tunnel", 1450)):
        tunnel.apply(configuration(routing_mode=mode))
        tunnel.wait(partial(_all_in, tunnel, mode))
        for far in addresses(tunnel, "far"):
            tunnel.wait(partial(ping, tunnel, "near", far), what=f"{mode}: {far} answers")
            tunnel.wait(partial(_answers_node, tunnel, far))

        tunnel.wait(partial(_have_mtu, tunnel, mtu), what=f"{mode}: pods' devices have the MTU")
    assert {name: pid for name, pid in tunnel.pids().items() if name.startswith("datapath")} == pids


def _all_in(lab: Lab, mode: str) -> bool:
    return all(bool(device(lab, node)) == (mode == "tunnel") for node in ("node1", "node2"))


def _answers_node(lab: Lab, address: str) -> bool:
    return lab.on("node1", "ping", "-c1", "-W1", address).returncode == 0


def _have_mtu(lab: Lab, mtu: int) -> bool:
    links = [lab.exec(pod, "ip", "-j", "link", "show", "dev", "eth0") for pod in ("near", "far")]
    return {json.loads(each.stdout)[0]["mtu"] for each in links} == {mtu}


def test_a_configuration_that_cannot_be_is_refused(tmp_path: Path) -> None:
    import subprocess

    file = tmp_path / "config.yaml"
    file.write_text("routing-mode: tunnel\ntunnel-protocol: geneve\n")
    words = [str(CIRRI), "lab", "up", "--name", f"test-{os.getpid()}-bad", "--config", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "tunnel-protocol: 'geneve' is not allowed; allowed: vxlan" in done.stderr
