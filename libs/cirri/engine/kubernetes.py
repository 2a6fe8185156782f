"""Kubernetes NetworkPolicy, as one rule set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cirri.engine.cidr import read_block
from cirri.engine.config import EngineConfig
from cirri.engine.labelselector import requirements
from cirri.engine.origin import origin
from cirri.engine.ports import kubernetes_ports
from cirri.engine.rule import Findings, ObjectRule, Section, Term
from cirri.engine.scope import K8S, kubernetes_peer, subject
from cirri.engine.select import Selector
from cirri.model import Resource

_FIELDS = {"podSelector", "policyTypes", "ingress", "egress"}


def kubernetes_rules(resource: Resource, config: EngineConfig, out: Findings) -> list[ObjectRule]:
    """The rule set of a NetworkPolicy: always default-deny in the directions of its policyTypes."""
    spec = resource.manifest.get("spec")
    if not isinstance(spec, dict):
        out.fault("spec", "is required")
        return []
    for unknown in spec.keys() - _FIELDS:
        out.fault(f"spec.{unknown}", f"unknown field; allowed are {', '.join(sorted(_FIELDS))}")
    selector = requirements(spec.get("podSelector") or {}, "spec.podSelector", out, source=K8S)
    directions = _directions(spec, out)
    reader = _Reader(resource, config, out)
    return [
        ObjectRule(
            subject(selector, resource.namespace),
            reader.section("ingress", "from", spec) if "Ingress" in directions else Section(),
            reader.section("egress", "to", spec) if "Egress" in directions else Section(),
        )
    ]


def _directions(spec: dict[str, Any], out: Findings) -> set[str]:
    listed = spec.get("policyTypes")
    if not listed:
        return {"Ingress", "Egress"} if spec.get("egress") else {"Ingress"}
    if not isinstance(listed, list) or not set(map(str, listed)) <= {"Ingress", "Egress"}:
        out.fault("spec.policyTypes", f"{listed!r} is not a list of Ingress, Egress")
        return {"Ingress", "Egress"}
    return set(listed)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the sections of one object."""

    resource: Resource
    config: EngineConfig
    out: Findings

    def section(self, name: str, member: str, spec: dict[str, Any]) -> Section:
        """The direction *name*, whose rules have their peers in *member*."""
        items = self.out.items(spec.get(name), f"spec.{name}")
        terms: list[Term] = []
        origins = []
        for index, item in enumerate(items):
            path = f"spec.{name}[{index}]"
            source = origin(self.resource, path)
            origins.append(source)
            if not isinstance(item, dict):
                self.out.fault(path, "a rule is an object")
                continue
            for unknown in item.keys() - {member, "ports"}:
                self.out.fault(f"{path}.{unknown}", f"unknown field; allowed are {member}, ports")
            ports = kubernetes_ports(item.get("ports"), f"{path}.ports", self.out)
            peers = self.out.items(item.get(member), f"{path}.{member}")
            if not peers:
                terms.append(Term(source, None, ports))
                continue
            pods, blocks = self._peers(peers, f"{path}.{member}")
            terms += [Term(source, pods, ports, endpoints=True)] if pods else []
            terms += [Term(source, blocks, ports)] if blocks else []
        return Section(
            present=True,
            default_deny=True,
            terms=tuple(terms),
            origins=tuple(origins) or (origin(self.resource, f"spec.{name}"),),
        )

    def _peers(self, items: list[Any], path: str) -> tuple[tuple[Selector, ...], tuple[Selector, ...]]:
        """Peers by labels, and peers by address."""
        pods, blocks = [], []
        for index, item in enumerate(items):
            where = f"{path}[{index}]"
            if not isinstance(item, dict):
                self.out.fault(where, "a peer is an object")
                continue
            for unknown in item.keys() - {"podSelector", "namespaceSelector", "ipBlock"}:
                self.out.fault(
                    f"{where}.{unknown}", "unknown field; allowed are podSelector, namespaceSelector, ipBlock"
                )
            if item.get("ipBlock") is None:
                pods += self._pods(item, where)
                continue
            if item.get("podSelector") is not None or item.get("namespaceSelector") is not None:
                self.out.fault(where, "ipBlock cannot be combined with a selector")
            block = read_block(item["ipBlock"], f"{where}.ipBlock", self.out, nodes=self.config.nodes_by_cidr)
            blocks += [block] if block is not None and block.alternatives else []
        return tuple(pods), tuple(blocks)

    def _pods(self, item: dict[str, Any], path: str) -> list[Selector]:
        given = {
            name: requirements(item[name], f"{path}.{name}", self.out, source=K8S)
            for name in ("podSelector", "namespaceSelector")
            if item.get(name) is not None
        }
        if not given:
            self.out.fault(path, "needs podSelector, namespaceSelector or ipBlock")
            return []
        cluster = self.config.cluster if self.config.local_cluster else ""
        return [
            kubernetes_peer(
                given.get("podSelector"), given.get("namespaceSelector"), self.resource.namespace, cluster
            )
        ]
