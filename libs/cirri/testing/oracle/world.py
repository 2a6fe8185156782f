"""What there is: pods, nodes, namespaces, objects and configuration, and how one party looks to another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple

Address = IPv4Address | IPv6Address
Manifest = dict[str, Any]

NAMESPACE = "io.kubernetes.pod.namespace"
NAMESPACE_LABEL = "io.cilium.k8s.namespace.labels."
ACCOUNT = "io.cilium.k8s.policy.serviceaccount"
CLUSTER = "io.cilium.k8s.policy.cluster"

INCLUSIVE = (
    r"io\.kubernetes\.pod\.namespace",
    r"io\.cilium\.k8s\.namespace\.labels",
    r"app\.kubernetes\.io",
    r"io\.cilium\.k8s\.policy\.cluster",
    r"io\.cilium\.k8s\.policy\.serviceaccount",
)
EXCLUSIVE = (
    r"io\.kubernetes",
    r"kubernetes\.io",
    r"statefulset\.kubernetes\.io/pod-name",
    r"apps\.kubernetes\.io/pod-index",
    r"batch\.kubernetes\.io/job-completion-index",
    r"batch\.kubernetes\.io/controller-uid",
    r".*beta\.kubernetes\.io",
    r"k8s\.io",
    r"pod-template-generation",
    r"pod-template-hash",
    r"controller-revision-hash",
    r"controller-uid",
    r"annotation.*",
    r"etcd_node",
    r"topology\.kubernetes\.io",
)
"""Beginnings of the keys that count for identity, and of those that do not (section 3.3)."""


class Pod(NamedTuple):
    """A pod as its manifest describes it."""

    namespace: str
    labels: Mapping[str, str] = {}
    account: str = "default"
    ports: Mapping[tuple[str, str], int] = {}
    """Named container ports: (protocol, name) -> number."""
    node: str = "n1"
    addresses: tuple[str, ...] = ()
    cluster: str = ""
    """The cluster of a mesh that it is in; "": this one."""


class Node(NamedTuple):
    """A node as its Node object describes it."""

    labels: Mapping[str, str] = {}
    addresses: tuple[str, ...] = ()
    api_server: bool = False


@dataclass(frozen=True)
class World:
    """Everything that a verdict can depend on.

    Parties are named ``namespace/pod``, ``node:NAME``, ``reserved:health`` (``init``, ``ingress``,
    ``unmanaged``), or by an address outside the cluster.
    """

    namespaces: Mapping[str, Mapping[str, str]]
    pods: Mapping[str, Pod]
    nodes: Mapping[str, Node]
    manifests: tuple[Manifest, ...] = ()
    """Policies, CIDR groups, Services and EndpointSlices."""
    api_servers: tuple[str, ...] = ()
    """Addresses outside the cluster."""
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def cluster(self) -> str:
        """The name of this cluster."""
        return self.config.get("cluster-name", "default")

    def of_kind(self, kind: str) -> Iterator[Manifest]:
        """Objects of a kind."""
        return (each for each in self.manifests if each["kind"] == kind)


@dataclass(frozen=True)
class Seen:
    """A party, as a selector looks at it."""

    labels: Mapping[str, tuple[tuple[str, str], ...]]
    """Key -> (source, value) of each label with that key."""
    addresses: tuple[Address, ...] = ()
    """What CIDRs are compared with: none for what is inside the cluster."""
    ports: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def has(self, source: str, key: str) -> bool:
        """Whether there is such a label, of whatever value."""
        return any(each == source for each, _ in self.labels.get(key, ()))

    def says(self, source: str, key: str, value: str) -> bool:
        """Whether there is exactly this label."""
        return (source, value) in self.labels.get(key, ())


def seen(labels: Iterable[tuple[str, str, str]], *more: Any) -> Seen:
    """A party with *labels*, each (source, key, value)."""
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for source, key, value in labels:
        found[key] = (*found.get(key, ()), (source, value))
    return Seen(found, *more)


def look(world: World, party: str, viewpoint: str) -> Seen:
    """How *party* looks from the node *viewpoint*, as a peer."""
    kind, _, name = party.partition(":")
    if party in world.pods:
        return _pod(world, world.pods[party])
    if kind == "node":
        return _node(world, world.nodes[name], here=name == viewpoint)
    if kind == "reserved":
        return seen([("reserved", name, "")])
    address = ip_address(party)
    labels = [("reserved", f"world-ipv{address.version}", ""), ("reserved", "world", "")]
    if any(ip_address(each) == address for each in world.api_servers):
        labels.append(("reserved", "kube-apiserver", ""))
    return seen(labels, (address,))


def look_at_subject(world: World, party: str) -> Seen:
    """How *party* looks to the selectors of subjects."""
    kind, _, name = party.partition(":")
    if kind != "node":
        return look(world, party, "")
    node = world.nodes[name]
    labels = [("k8s", key, value) for key, value in node.labels.items() if counts(key)]
    labels.append(("reserved", "host", ""))
    if node.api_server:
        labels.append(("reserved", "kube-apiserver", ""))
    return seen(labels)


def _pod(world: World, pod: Pod) -> Seen:
    labels = {key: value for key, value in pod.labels.items() if not key.startswith("io.cilium.k8s")}
    labels |= {NAMESPACE: pod.namespace, ACCOUNT: pod.account, CLUSTER: pod.cluster or world.cluster}
    for key, value in world.namespaces[pod.namespace].items():
        labels[NAMESPACE_LABEL + key] = value
    return seen([("k8s", k, v) for k, v in labels.items() if counts(k)], (), pod.ports)


def _node(world: World, node: Node, *, here: bool) -> Seen:
    labels = [("reserved", "host" if here else "remote-node", "")]
    if node.api_server:
        labels.append(("reserved", "kube-apiserver", ""))
    if not here and world.config.get("enable-node-selector-labels") == "true":
        labels += [("node", key, value) for key, value in node.labels.items()]
    by_cidr = "nodes" in world.config.get("policy-cidr-match-mode", "").split(",")
    return seen(labels, tuple(map(ip_address, node.addresses)) if by_cidr else ())


def counts(key: str) -> bool:
    """Whether a label with *key* is part of an identity, by the default filter."""
    inside = [len(found[0]) for each in INCLUSIVE if (found := re.match(each, key))]
    outside = [len(found[0]) for each in EXCLUSIVE if (found := re.match(each, key))]
    return not outside or (bool(inside) and max(inside) > min(outside))
