"""What the flows of a cluster say of packets is what was sent, on either node, at either end."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.lab.asked import HERE, PYTHON

from cirri.testing.lab import Lab

NS = "exact"
WORLD = "---".join(
    f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {NS}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  containers: [{{name: main, image: pause}}]
"""
    for name, node in (("near", "node1"), ("beside", "node1"), ("far", "node2"))
)
POLICY = f"""
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: open, namespace: {NS}}}
spec:
  endpointSelector: {{}}
  ingress: [{{toPorts: [{{ports: [{{port: "7777", protocol: UDP}}]}}]}}]
"""
OPEN, SHUT = 7777, 7778
SENT, DENIED = 300, 40
SEND = f"""
import socket, sys, time
for to in sys.argv[1:]:
    for port, count in (({OPEN}, {SENT}), ({SHUT}, {DENIED})):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.bind(("", 5555))
            for n in range(count):
                one.sendto(b"x", (to, port))
                if n == count - 2:
                    time.sleep(0.1)  # the interval passes: the last one tells of all between
"""
"""No error stops it: the socket is not connected."""


def configuration(**data: str) -> str:
    about = {"name": "cirri-config", "namespace": "kube-system"}
    keys = {key.replace("_", "-"): value for key, value in data.items()}
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": keys})


@pytest.fixture
def world(lab: Lab) -> Iterator[Lab]:
    """Three pods, and an interval of 50 ms."""
    lab.apply(f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NS}}}\n---{WORLD}---{POLICY}")
    lab.apply(configuration(monitor_aggregation_interval="50ms"))
    yield lab
    lab.apply(configuration())
    lab.delete("cnp", "open", namespace=NS)
    for name in ("near", "beside", "far"):
        lab.delete("pod", name, namespace=NS)


def sums(lab: Lab) -> Counter[tuple[str, str, int, str]]:
    """Packets of flows by (node, destination, port, verdict)."""
    context = Path("/run/cirri") / lab.name / "context.json"
    done = lab.on("fabric", sys.executable, str(HERE / "flowing.py"), str(context), NS)
    assert done.returncode == 0, done.stderr
    found: Counter[tuple[str, str, int, str]] = Counter()
    for row in map(json.loads, done.stdout.splitlines()):
        assert not row["lost"].get("ring"), row["lost"]
        if row["protocol"] == 17 and row["source_port"] == 5555:
            found[row["node"], row["destination"], row["destination_port"], row["kind"]] += row["packets"]
    return +found


def test_flows_make_what_was_sent(world: Lab) -> None:
    """To a pod beside it each packet is one; to another node one on each; what is denied is forwarded by the
    first node and dropped by the second."""
    pods = world.pods()
    beside, far = (pods[f"{NS}/{name}"]["addresses"][0] for name in ("beside", "far"))
    done = world.exec("near", PYTHON, "-c", SEND, beside, far, namespace=NS)
    assert done.returncode == 0, done.stderr
    expected = {
        ("node1", beside, OPEN, "forwarded"): SENT,
        ("node1", beside, SHUT, "dropped"): DENIED,
        ("node1", far, OPEN, "forwarded"): SENT,
        ("node1", far, SHUT, "forwarded"): DENIED,
        ("node2", far, OPEN, "forwarded"): SENT,
        ("node2", far, SHUT, "dropped"): DENIED,
    }
    found: Counter[tuple[str, str, int, str]] = Counter()

    def stored() -> bool:
        found.clear()
        found.update(sums(world))
        return found == expected

    try:
        world.wait(stored, what="the sums of what was sent")
    except AssertionError:
        assert dict(found) == expected
        raise
