"""Proxies, policy and the bus killed under DNS and HTTP load: no look-up and no request fails.

Envoy alone is on the way of requests.  While it is dead what it guards is closed, and nothing else is.

::

    near (node1), far (node2): POST /allowed to server (node1) through Envoy; PUT /forbidden is refused
    asker (node1), another (node2): look names up through the DNS proxy, and connect to what they are told
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.lab.asked import HERE, PYTHON, Ask, heard
from integration.lab.driven import Driven

from cirri.lab.internet import CDN_NAMES
from cirri.testing.lab import Lab

BACK_S = 1.0
"""How soon after Envoy's death requests pass again."""
NODES = ("node1", "node2")
PLEASE = [
    *(f"dnsproxy-{which}-{node}" for node in NODES for which in ("a", "b")),
    *(f"l7proxy-{node}" for node in NODES),
    *(f"datapath-{node}" for node in NODES),
    *("policy", "identity", "nats-server"),
]
"""Each may die at any time."""
WORLD = f"""
apiVersion: v1
kind: Pod
metadata: {{name: server, labels: {{role: server}}}}
spec:
  nodeName: node1
  containers: [{{name: main, image: x, command: [{PYTHON}, {HERE / "requesting.py"}, serve, "80"]}}]
""" + "".join(
    f"""---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{role: {role}}}}}
spec: {{nodeName: {node}, containers: [{{name: main, image: pause}}]}}
"""
    for name, node, role in (
        ("near", "node1", "client"),
        ("far", "node2", "client"),
        ("asker", "node1", "asker"),
        ("another", "node2", "asker"),
        ("plain", "node1", "plain"),
    )
)
POLICY = """---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: server}
spec:
  endpointSelector: {matchLabels: {role: server}}
  ingress:
  - fromEndpoints: [{matchLabels: {role: client}}]
    toPorts:
    - ports: [{port: "80", protocol: TCP}]
      rules: {http: [{method: POST, path: %s}]}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: asker}
spec:
  endpointSelector: {matchLabels: {role: asker}}
  egress:
  - toFQDNs: [{matchPattern: "*.cdn.example.net"}]
  - toEndpoints: [{matchLabels: {"k8s:io.kubernetes.pod.namespace": kube-system, k8s-app: kube-dns}}]
    toPorts: [{ports: [{port: "53", protocol: ANY}], rules: {dns: [{matchPattern: "*"}]}}]
"""


def loads(lab: Lab) -> dict[str, Driven]:
    """All four."""
    pods = lab.pods()
    server4, server6 = sorted(pods["default/server"]["addresses"], key=lambda a: ":" in a)
    names = [f"{name}.cdn.example.net" for name in CDN_NAMES]
    wanted = {"names": names, "types": ["A", "AAAA"], "port": 80, "workers": 2, "rounds": 0}
    return {
        "near": Driven(lab, "near", "requesting.py", "drive", server4, "80"),
        "far": Driven(lab, "far", "requesting.py", "drive", server6, "80"),
        "asker": Driven(lab, "asker", "resolving.py", json.dumps(wanted)),
        "another": Driven(lab, "another", "resolving.py", json.dumps(wanted)),
    }


@pytest.fixture(scope="module")
def world() -> Iterator[Lab]:
    with Lab(2, f"test-{os.getpid()}-proxies", "--without", "flows") as lab:
        lab.apply(WORLD)
        server = lab.pods()["default/server"]["addresses"][0]
        ready = [Ask(pod, f"http://{server}/", "") for pod in ("near", "far")]
        lab.wait(lambda: all(words.startswith("200") for words in heard(lab, ready)), what="a server")
        lab.apply(POLICY % "/allowed")
        yield lab


@pytest.fixture
def load(world: Lab) -> Iterator[dict[str, Driven]]:
    running = loads(world)
    try:
        yield running
    finally:
        for each in running.values():
            each.close()


def pids(lab: Lab) -> dict[str, int]:
    """Process name -> pid, as its supervisor says; 0: it is dead."""
    said = json.loads(Path("/run/cirri", lab.name, "supervisor.json").read_text())
    return {child["name"]: child["pid"] for child in said["children"]}


def kill(pid: int) -> float:
    """SIGKILL; when."""
    assert pid, "it is dead already"  # 0 would be everybody here
    at = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    return at


def check_requests(account: dict[str, Any]) -> None:
    assert account["wrong"] == [], account
    assert account["POST 200"] > 10
    assert account["PUT 403"] > 10
    assert {name for name in account if name.startswith(("POST", "PUT"))} == {"POST 200", "PUT 403"}
    assert "reached the server" not in account


def check_rounds(account: dict[str, Any]) -> None:
    assert account["wrong"] == [], account
    assert account["connected"] == account["answered"] > 10


def check_all(load: dict[str, Driven]) -> None:
    accounts = {name: each.account() for name, each in load.items()}

    print(json.dumps(accounts, indent=1))
    for name in ("near", "far"):
        check_requests(accounts[name])
    for name in ("asker", "another"):
        check_rounds(accounts[name])


def test_each_killed_alone(world: Lab, load: dict[str, Driven]) -> None:
    for name in PLEASE:
        pid = pids(world)[name]
        kill(pid)
        world.wait(lambda n=name, p=pid: pids(world)[n] not in (0, p), what=f"{name} again")  # type: ignore[misc]
        time.sleep(0.5)  # the load goes on for a while with the new one before the next dies
    check_all(load)


def test_both_dns_proxies_and_everything_central_at_once(world: Lab, load: dict[str, Driven]) -> None:
    before = pids(world)
    for name in PLEASE:
        kill(before[name])
    world.wait(lambda: all(pids(world)[name] not in (0, before[name]) for name in PLEASE), what="all again")
    time.sleep(2.0)
    check_all(load)


def test_rules_change_under_living_connections(world: Lab, load: dict[str, Driven]) -> None:
    for path in ("/allowed|/more", "/allowed|/other", "/allowed"):
        world.apply(POLICY % f"'{path}'")
    for name in ("near", "far"):
        check_requests(load[name].account())


def envoy(lab: Lab, node: str) -> int:
    """Pid of the node's Envoy itself."""
    home = os.stat(f"/run/netns/cirri-{lab.name}-{node}").st_ino
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            if (proc / "exe").readlink().name == "envoy" and (proc / "ns/net").stat().st_ino == home:
                return int(proc.name)
        except OSError:
            continue
    raise AssertionError(f"no Envoy on {node}")


@pytest.mark.parametrize("who", ["envoy", "its wrapper"])
def test_envoy_dies(world: Lab, load: dict[str, Driven], who: str) -> None:
    """Closed while it is away, back within a second; nothing else notices."""
    at = kill(envoy(world, "node1") if who == "envoy" else pids(world)["envoy-node1"])
    time.sleep(3.0)
    accounts = {name: each.account() for name, each in load.items()}

    print(json.dumps(accounts, indent=1))
    for name in ("near", "far"):
        account = accounts[name]
        assert "reached the server" not in account
        assert {n for n in account if n.startswith(("POST", "PUT"))} == {"POST 200", "PUT 403"}
        late = [(round(when - at, 2), what) for when, what in account["wrong"] if when > at + BACK_S]
        assert late == []
    for name in ("asker", "another"):
        check_rounds(accounts[name])
