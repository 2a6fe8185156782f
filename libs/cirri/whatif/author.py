"""Rules for just one connection, as a person would write them.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cirri.engine.ports import ICMP, ICMPV6, PROTOCOL_NAMES
from cirri.labels import CLUSTER_KEY, NAMESPACE_KEY, Label
from cirri.model import Resource
from cirri.whatif.port import Port
from cirri.whatif.words import K8S, user_labels

KUBERNETES = "NetworkPolicy"
ENTITIES = ("kube-apiserver", "host", "remote-node", "health", "ingress", "init", "unmanaged")
"""Peers with a word of their own, the narrowest first."""


@dataclass(frozen=True, slots=True)
class Author:
    """Writes what lets one peer through at one port."""

    inward: bool
    labels: frozenset[str]
    """Of the peer, as the subject sees it."""
    address: str
    """Of a peer outside the cluster; empty: it is inside, or not known."""
    port: Port
    cluster: str
    """The local one."""

    def rule(self, kind: str, namespace: str) -> dict[str, Any] | None:
        """One more rule for a policy of *kind* in *namespace*; None: its language cannot say it."""
        if kind == KUBERNETES:
            return self._kubernetes_rule(namespace)
        peers = self._peers(namespace)
        return None if peers is None else {**peers, **self._ports()}

    def policy(self, own: frozenset[str]) -> Resource | None:
        """A policy that selects subjects with labels *own* and lets the peer through."""
        namespace = _values(own).get(NAMESPACE_KEY, "")
        kind = "CiliumNetworkPolicy" if namespace else "CiliumClusterwideNetworkPolicy"
        rule = self.rule(kind, namespace)
        if rule is None:
            return None
        reserved = sorted(text for text in own if text.startswith("reserved:"))
        labels = dict(sorted(user_labels(own).items()))
        if "reserved:host" not in reserved and reserved:
            labels = {reserved[0]: ""}
        subject = "nodeSelector" if "reserved:host" in reserved else "endpointSelector"
        manifest = {
            "apiVersion": "cilium.io/v2",
            "kind": kind,
            "metadata": {"name": "allow", **({"namespace": namespace} if namespace else {})},
            "spec": {
                subject: {"matchLabels": labels} if labels else {},
                "ingress" if self.inward else "egress": [rule],
            },
        }
        return Resource(kind=kind, namespace=namespace, name="allow", manifest=manifest)

    def port_entry(self, kind: str) -> dict[str, Any] | None:
        """The port, as an entry of a list of *kind*; None: there are no such entries for ICMP."""
        if self.icmp:
            return None
        number = self.port.number
        return {
            "port": number if kind == KUBERNETES else str(number),
            "protocol": PROTOCOL_NAMES[self.port.protocol],
        }

    def icmp_field(self) -> dict[str, Any]:
        """The ICMP type, as an entry of ``icmps[].fields``."""
        return {"family": "IPv6" if self.port.protocol == ICMPV6 else "IPv4", "type": self.port.number}

    @property
    def icmp(self) -> bool:
        """Whether it is asked about an ICMP type."""
        return self.port.protocol in {ICMP, ICMPV6}

    def _ports(self) -> dict[str, Any]:
        if self.icmp:
            return {"icmps": [{"fields": [self.icmp_field()]}]}
        return {"toPorts": [{"ports": [self.port_entry("")]}]}

    def _peers(self, namespace: str) -> dict[str, Any] | None:
        side = "from" if self.inward else "to"
        if self.address:
            return {f"{side}CIDR": [self._prefix()]}
        special = [name for name in ENTITIES if f"reserved:{name}" in self.labels]
        if any(text.startswith("reserved:world") for text in self.labels):
            special.append("world")
        if special:
            return {f"{side}Entities": special[:1]}
        known = _values(self.labels)
        if NAMESPACE_KEY not in known:
            return None
        wanted = dict(sorted(user_labels(self.labels).items()))
        if known[NAMESPACE_KEY] != namespace:
            wanted[f"{K8S}:{NAMESPACE_KEY}"] = known[NAMESPACE_KEY]
        if known.get(CLUSTER_KEY, self.cluster) != self.cluster:
            wanted[f"{K8S}:{CLUSTER_KEY}"] = known[CLUSTER_KEY]
        return {f"{side}Endpoints": [{"matchLabels": wanted} if wanted else {}]}

    def _kubernetes_rule(self, namespace: str) -> dict[str, Any] | None:
        known = _values(self.labels)
        if self.icmp or (not self.address and NAMESPACE_KEY not in known):
            return None  # no words for ICMP, nor for nodes and other special peers
        if self.address:
            peer: dict[str, Any] = {"ipBlock": {"cidr": self._prefix()}}
        else:
            labels = dict(sorted(user_labels(self.labels).items()))
            peer = {"podSelector": {"matchLabels": labels} if labels else {}}
            if known[NAMESPACE_KEY] != namespace:
                name = {"kubernetes.io/metadata.name": known[NAMESPACE_KEY]}
                peer["namespaceSelector"] = {"matchLabels": name}
        return {"from" if self.inward else "to": [peer], "ports": [self.port_entry(KUBERNETES)]}

    def _prefix(self) -> str:
        return f"{self.address}/{128 if ':' in self.address else 32}"


def _values(labels: frozenset[str]) -> dict[str, str]:
    return {one.key: one.value for one in map(Label.parse, labels) if one.source == K8S}
