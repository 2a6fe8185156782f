"""Policies as text and a small cluster to ask: what the engine's tests are written in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from cirri.engine import EGRESS, INGRESS, Compiler, EngineConfig, entries, verdict
from cirri.labels import Reserved, canonical
from cirri.model import Direction, Resource

PROTOCOLS = {"ICMP": 1, "TCP": 6, "UDP": 17, "ICMPv6": 58, "SCTP": 132}

PEERS = {
    "host": Reserved.HOST,
    "rnode": Reserved.REMOTE_NODE,
    "world": Reserved.WORLD_IPV4,
    "world6": Reserved.WORLD_IPV6,
    "health": Reserved.HEALTH,
    "ingress": Reserved.INGRESS,
    "apiserver": Reserved.KUBE_APISERVER,
    "init": Reserved.INIT,
}
"""Peers that are not pods, as the tests call them."""


def policies(text: str, *, namespace: str = "shop") -> list[Resource]:
    """The YAML documents of *text*: CiliumNetworkPolicies of *namespace* unless they say otherwise."""
    found = []
    for index, document in enumerate(filter(None, yaml.safe_load_all(text))):
        manifest: dict[str, Any] = dict(document)
        kind = manifest.setdefault("kind", "CiliumNetworkPolicy")
        metadata = manifest.setdefault("metadata", {})
        where = "" if kind == "CiliumClusterwideNetworkPolicy" else metadata.get("namespace", namespace)
        found.append(
            Resource(
                kind=kind,
                namespace=where,
                name=metadata.setdefault("name", f"policy-{index}"),
                manifest=manifest,
                source=f"test.yaml:{index}",
            )
        )
    return found


def pod(
    namespace: str,
    labels: Mapping[str, str],
    *,
    account: str = "default",
    namespace_labels: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Identity labels of a pod."""
    derived = {
        "io.kubernetes.pod.namespace": namespace,
        "io.cilium.k8s.policy.cluster": "default",
        "io.cilium.k8s.policy.serviceaccount": account,
        "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": namespace,
    }
    of_namespace = {
        f"io.cilium.k8s.namespace.labels.{key}": value for key, value in (namespace_labels or {}).items()
    }
    return canonical(f"k8s:{key}={value}" for key, value in (dict(labels) | of_namespace | derived).items())


class Cluster:
    """Pods by name under policies; answers who may talk to whom."""

    def __init__(
        self,
        pods: Mapping[str, Iterable[str]],
        objects: Iterable[Resource],
        config: EngineConfig | None = None,
    ) -> None:
        self.compiler = Compiler(config, subjects=[Reserved.INIT, Reserved.HEALTH])
        self.numbers: dict[str, int] = dict(PEERS)
        for number, (name, labels) in enumerate(pods.items(), start=256):
            self.numbers[name] = number
            self.compiler.add_identity(number, labels)
        for each in objects:
            self.compiler.update_resource(each)
        self.compiler.flush()

    def ask(self, flow: str) -> str:
        """``SRC -> DST PROTOCOL/PORT`` gives allow, drop/D (default) or drop/X (denied): first that of the
        source's egress, then that of the destination's ingress."""
        source, _, rest = flow.partition(" -> ")
        target, _, port = rest.partition(" ")
        for answer in (self.side(source, EGRESS, target, port), self.side(target, INGRESS, source, port)):
            if answer != "allow":
                return answer
        return "allow"

    def side(self, subject: str, direction: int, peer: str, port: str) -> str:
        """What the policy of *subject* alone says."""
        policy = self.compiler.policies.get(self.numbers[subject])
        if policy is None:
            return "allow"
        half: Direction = policy.ingress if direction == INGRESS else policy.egress
        protocol, _, number = port.partition("/")
        found = verdict(
            entries(policy, self.compiler.sets),
            self.numbers[peer],
            direction,
            PROTOCOLS[protocol],
            int(number),
            enforced=half.enforced,
        )
        return "allow" if found.allowed else "drop/X" if found.cause == "deny-rule" else "drop/D"
