"""Three namespaces, three pods each, two ports: who reaches whom on real traffic is what the command says.

Every file of ``matrices/`` is applied to a lab by itself.  ``cirri policy matrix`` tells from the same
manifests who may reach whom; then real sockets ask all of it: pods among each other, from a host outside
the cluster, from the pods' own nodes and from the other one, with TCP, UDP and ICMP.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from integration.lab.probing import Ask, Party, Prober

from cirri.lab.topology import Topology, pod_netns
from cirri.testing.lab import Lab

MATRICES = sorted((Path(__file__).parent / "matrices").glob("*.yaml"))
QUESTIONS = (("TCP", 80), ("TCP", 81), ("UDP", 80), ("ICMP", 8), ("ICMPv6", 128))
LISTENING = (("TCP", 80), ("TCP", 81), ("UDP", 80))
NAMESPACES, PODS = "xyz", "abc"

NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {{name: {0}, labels: {{ns: {0}}}}}
---
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{pod: {name}}}}}
spec:
  nodeName: {node}
  serviceAccountName: {account}
  containers:
    - name: main
      image: pause
      ports:
        - {{name: web, containerPort: {web}}}
        - {{name: alt, containerPort: {alt}}}
---
"""


def world() -> str:
    """The manifests of the nine pods; pods named c give the two port names to the other numbers."""
    text = "".join(NAMESPACE.format(each) for each in NAMESPACES)
    for index, (namespace, name) in enumerate(product(NAMESPACES, PODS)):
        web, alt = (81, 80) if name == "c" else (80, 81)
        node, account = f"node{1 + index % 2}", "special" if name == "b" else "default"
        text += POD.format(namespace=namespace, name=name, node=node, account=account, web=web, alt=alt)
    return text


class Cluster:
    """A lab with the nine pods, and sockets everywhere."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        (folder / "world.yaml").write_text(world())
        lab.apply(world())
        self.node = {name: pod["node"] for name, pod in lab.pods().items()}
        self.pods = [f"{namespace}/{name}" for namespace, name in product(NAMESPACES, PODS)]
        parties = {
            name: Party(pod_netns(lab.name, *name.split("/")), *lab.pods()[name]["addresses"])
            for name in self.pods
        }
        for host in ("client", "node1", "node2"):
            at = Topology(lab.name, lab.nodes).host(host)
            parties[host] = Party(at.netns, at.ipv4, at.ipv6)
        self.client = parties["client"].ipv4
        # Nodes only ask: what reaches them is the business of the host firewall.
        self.prober = Prober(parties, LISTENING)
        pairs = [(a, b) for a, b in product([*self.pods, "client", "node1", "node2"], self.pods) if a != b]
        pairs += [(pod, "client") for pod in self.pods]
        self.asks = [Ask(a, b, *question) for (a, b), question in product(pairs, QUESTIONS)]
        outside = [
            {"name": "client", "labels": ["reserved:world"], "ip": self.client},
            {"name": "client6", "labels": ["reserved:world"], "ip": parties["client"].ipv6},
            {"name": "host", "labels": ["reserved:host"]},
            {"name": "remote-node", "labels": ["reserved:remote-node"]},
        ]
        (folder / "outside.json").write_text(json.dumps(outside))

    def predicted(self, *files: Path) -> dict[tuple[str, str, str, int], bool]:
        """(from, to, protocol, port) -> whether it may pass, as ``cirri policy matrix`` says."""
        rows = json.loads(self.lab.cirri("policy", "matrix", *self._questions(files), "-o", "json").stdout)
        return {(r["from"], r["to"], r["protocol"], r["port"]): r["verdict"] == "allow" for r in rows}

    def _questions(self, files: tuple[Path, ...]) -> list[str]:
        words = [word for file in (self.folder / "world.yaml", *files) for word in ("-f", str(file))]
        words += [word for protocol, port in QUESTIONS for word in ("--port", f"{port}/{protocol}")]
        return [*words, "--endpoints", str(self.folder / "outside.json")]

    def expected(self, predicted: dict[tuple[str, str, str, int], bool]) -> set[Ask]:
        """What of all that is asked should arrive."""
        return {ask for ask in self.asks if predicted[self._seen(ask)]}

    def _seen(self, ask: Ask) -> tuple[str, str, str, int]:
        """The row that speaks of *ask*: nodes and the outside have other names there."""
        names = {"client": "client6" if ask.protocol == "ICMPv6" else "client"}
        names |= {
            node: "host" if self.node[ask.target] == node else "remote-node"
            for node in ("node1", "node2")
            if ask.target in self.node
        }
        source, target = names.get(ask.source, ask.source), names.get(ask.target, ask.target)
        return source, target, ask.protocol, ask.port


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Lab(2, "", "--without", "flows") as lab:
        made = Cluster(lab, tmp_path_factory.mktemp("matrices"))
        yield made
        made.prober.close()


def test_without_a_policy_everything_passes(cluster: Cluster) -> None:
    predicted = cluster.predicted()
    assert all(predicted.values())
    assert cluster.prober.round(cluster.asks, cluster.asks) == set(cluster.asks)


@pytest.mark.parametrize("file", MATRICES, ids=[file.stem for file in MATRICES])
def test_traffic_is_as_the_matrix_says(cluster: Cluster, file: Path) -> None:
    predicted = cluster.predicted(file)
    expected = cluster.expected(predicted)
    cluster.lab.apply(file)
    try:
        arrived = cluster.prober.round(cluster.asks, expected)
    finally:
        cluster.lab.cirri("delete", "-f", str(file), "--wait")
    assert _words(arrived - expected) == [], "arrived, although the matrix denies it"
    assert _words(expected - arrived) == [], "did not arrive, although the matrix allows it"
    if not file.stem.startswith("mode-never"):
        assert expected != set(cluster.asks), "a policy that denies nothing shows nothing"


def _words(asks: set[Ask]) -> list[Any]:
    return sorted(asks)[:20]
