"""Random clusters, and packets that have something to do with what policies there say."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from random import Random
from typing import Any, NamedTuple

from cirri.testing.oracle import Node, Pod, World
from cirri.testing.proof.context import context
from cirri.testing.proof.manifests import Features, Pen

HERE = "n1"
"""The node that packets are seen on."""
NODES = {
    "n1": Node({"role": "edge", "zone": "a", "kubernetes.io/hostname": "n1"},
               ("192.168.3.10", "fd00:192:168:3::10")),
    "n2": Node({"role": "core", "zone": "b", "kubernetes.io/hostname": "n2"},
               ("192.168.3.11", "172.16.0.10", "fd00:192:168:3::11")),
    "n3": Node({"zone": "a"}, ("192.168.3.12", "fd00:192:168:3::12")),
}  # fmt: skip
SPECIAL = {
    "reserved:health": ("10.52.0.100", "fd00:10:52::100"),
    "reserved:init": ("10.52.0.101", "fd00:10:52::101"),
    "reserved:ingress": ("10.52.1.102", "fd00:10:52:0:1::102"),
    "reserved:unmanaged": ("10.52.1.103", "fd00:10:52:0:1::103"),
}
"""Parties that are neither pods nor nodes, with their addresses."""
HEALTH_AND_INIT = ("reserved:health", "reserved:init")
"""Those of them that are endpoints of this node."""
OUTSIDE = (
    "198.51.100.1", "198.51.100.130", "198.51.100.200", "198.51.101.1", "203.0.113.80", "203.0.113.81",
    "8.8.8.8", "10.200.0.1", "172.20.1.1", "2001:db8:1::1", "2001:db8:2::1", "2001:db8:2::77", "2a00::1",
    "fd99::1",
)  # fmt: skip
NUMBERS = (53, 79, 80, 81, 85, 90, 91, 443, 8000, 8005, 8010, 8011, 8080, 9090, 9091, 9092, 65535)
TYPES = {4: (8, 8, 0, 13, 5), 6: (128, 128, 129, 1)}
TCP, UDP, SCTP, ICMP, ICMP6, GRE = 6, 17, 132, 1, 58, 47
PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
NAMED: tuple[dict[tuple[str, str], int], ...] = (
    {},
    {},
    {("TCP", "http"): 8080, ("UDP", "dns"): 53},
    {("TCP", "http"): 9090, ("TCP", "dns"): 53},
    {("TCP", "http"): 8080, ("SCTP", "http"): 80},
)


class Case(NamedTuple):
    """A packet that opens a connection, as the node :data:`HERE` sees it: it is from or to there."""

    source: str
    """A party of the world."""
    target: str
    protocol: int
    port: int
    """Destination port, or ICMP type."""
    version: int
    """Of IP."""

    def __str__(self) -> str:
        return (
            f"{self.source} -> {self.target} protocol {self.protocol} port {self.port} over IPv{self.version}"
        )


def world(random: Random, *, pods: int = 10, policies: int = 7) -> World:
    """A cluster with so many pods and at most so many policies."""
    config = _configuration(random)
    nodes = dict(NODES)
    name = random.choice(["n1", "n2", "n3", ""])
    if name:
        nodes[name] = nodes[name]._replace(api_server=True)
    features = Features(
        l7=random.random() < 0.4,
        auth=random.random() < 0.3,
        nodes=config.get("enable-node-selector-labels") == "true",
        audit=random.random() < 0.2,
        hosts=random.random() < 0.3 or config.get("enable-host-firewall") == "true",
    )
    pen = Pen(random, features)
    written = tuple(pen.policy(f"policy-{index}") for index in range(random.randint(1, policies)))
    return World(
        namespaces={
            "shop": {"team": "dev", "kubernetes.io/metadata.name": "shop"},
            "ops": {"team": "sre", "kubernetes.io/metadata.name": "ops"},
            "bare": {"kubernetes.io/metadata.name": "bare"},
        },
        pods={f"{pod.namespace}/p{index}": pod for index, pod in enumerate(_pods(random, pods))},
        nodes=nodes,
        manifests=(*written, *context(random)),
        api_servers=("203.0.113.81", "2001:db8:1::1") if random.random() < 0.3 else (),
        config=config,
    )


def _configuration(random: Random) -> dict[str, str]:
    choices: dict[str, list[str]] = {
        "enable-policy": [*["default"] * 8, *["always"] * 2, "never"],
        "allow-localhost": ["auto", "always", "policy", ""],
        "policy-cidr-match-mode": ["", "", "nodes"],
        "enable-node-selector-labels": ["true", "false"],
        "enable-host-firewall": ["true", "false"],
        "policy-default-local-cluster": ["true", "false", ""],
        "enable-non-default-deny-policies": ["true", "true", "true", "false"],
    }
    found = {key: random.choice(values) for key, values in choices.items()}
    return {key: value for key, value in found.items() if value}


def _pods(random: Random, count: int) -> list[Pod]:
    """Half of them here, half elsewhere, the last one of another cluster."""
    found = []
    for index in range(count):
        labels = {"app": random.choice(["web", "api", "db"]), "tier": random.choice(["front", "back"])}
        for key in list(labels):
            if random.random() < 0.2:
                del labels[key]
        if random.random() < 0.3:
            labels["pod-template-hash"] = "abc"
        if random.random() < 0.2:  # what users may not claim
            labels |= {
                "io.cilium.k8s.policy.serviceaccount": "payments",
                "io.kubernetes.pod.namespace": "ops",
            }
        here = index < count // 2
        found.append(
            Pod(
                namespace=random.choice(["shop", "shop", "ops", "bare"]),
                labels=labels,
                account=random.choice(["default", "default", "payments"]),
                ports=random.choice(NAMED),
                node=HERE if here else "n2",
                addresses=(
                    (f"10.52.0.{index + 2}", f"fd00:10:52::{index + 2:x}")
                    if here
                    else (f"10.52.1.{index + 2}", f"fd00:10:52:0:1::{index + 2:x}")
                ),
                cluster="east" if index == count - 1 else "",
            )
        )
    return found


def local(world: World, party: str) -> bool:
    """Whether the policy of *party* is asked on this node."""
    if party in world.pods:
        return world.pods[party].node == HERE
    return party == f"node:{HERE}" or party in HEALTH_AND_INIT


def asked(world: World, case: Case) -> Iterator[tuple[str, str, str]]:
    """(subject, direction, peer) of the policies that are asked on this node: first the source's."""
    if local(world, case.source):
        yield case.source, "egress", case.target
    if local(world, case.target):
        yield case.target, "ingress", case.source


def cases(random: Random, world: World, count: int) -> list[Case]:
    """*count* packets between parties of *world*."""
    here = [name for name, pod in world.pods.items() if pod.node == HERE]
    here += HEALTH_AND_INIT
    host = world.config.get("enable-host-firewall") == "true"
    others = [
        *world.pods,
        *world.pods,
        *[f"node:{HERE}"] * 3,
        *(f"node:{name}" for name in world.nodes),
        *SPECIAL,
        *OUTSIDE,
    ]
    named = _named(world.manifests) or [(TCP, 80)]
    found: list[Case] = []
    while len(found) < count:
        subject = f"node:{HERE}" if host and random.random() < 0.15 else random.choice(here)
        peer = random.choice(others)
        if peer == subject:
            continue
        version = ip_address(peer).version if peer in OUTSIDE else random.choice([4, 4, 6])
        protocol = random.choices([TCP, UDP, SCTP, ICMP, GRE], [10, 4, 2, 3, 0.3])[0]
        port = 0 if protocol == GRE else random.choice(NUMBERS)
        if protocol in {TCP, UDP, SCTP} and random.random() < 0.6:
            protocol, port = random.choice(named)
        if protocol == ICMP:
            protocol, port = ICMP if version == 4 else ICMP6, random.choice(TYPES[version])
        source, target = random.choice([(subject, peer), (peer, subject)])
        found.append(Case(source, target, protocol, port, version))
    return found


def _named(value: Any) -> list[tuple[int, int]]:
    """Protocol and port of what *value* (manifests) names, as often as it does."""
    if isinstance(value, list | tuple):
        return [each for part in value for each in _named(part)]
    if not isinstance(value, dict):
        return []
    found = [each for part in value.values() for each in _named(part)]
    if str(value.get("port", "")).isdigit():
        protocol = PROTOCOLS.get(value.get("protocol", ""), TCP)
        found += [(protocol, each) for each in (int(value["port"]), value.get("endPort", 0)) if each]
    return found
