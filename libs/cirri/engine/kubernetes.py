"""Kubernetes NetworkPolicy, as one rule set."""

from __future__ import annotations

from typing import Any

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
    return [
        ObjectRule(
            subject(selector, resource.namespace),
            _section(resource, "ingress", "from", spec, out) if "Ingress" in directions else Section(),
            _section(resource, "egress", "to", spec, out) if "Egress" in directions else Section(),
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


def _section(resource: Resource, name: str, member: str, spec: dict[str, Any], out: Findings) -> Section:
    items = spec.get(name) or []
    if not isinstance(items, list):
        out.fault(f"spec.{name}", "must be a list")
        items = []
    terms = []
    for index, item in enumerate(items):
        path = f"spec.{name}[{index}]"
        if not isinstance(item, dict):
            out.fault(path, "a rule is an object")
            continue
        for unknown in item.keys() - {member, "ports"}:
            out.fault(f"{path}.{unknown}", f"unknown field; allowed are {member}, ports")
        peers = _peers(resource, item.get(member), f"{path}.{member}", out)
        ports = kubernetes_ports(item.get("ports"), f"{path}.ports", out)
        terms.append(Term(origin(resource, path), peers, ports))
    origins = tuple(term.origin for term in terms) or (origin(resource, f"spec.{name}"),)
    return Section(present=True, default_deny=True, terms=tuple(terms), origins=origins)


def _peers(resource: Resource, items: Any, path: str, out: Findings) -> tuple[Selector, ...] | None:
    if not items:
        return None
    if not isinstance(items, list):
        out.fault(path, "must be a list")
        return ()
    found = []
    for index, item in enumerate(items):
        where = f"{path}[{index}]"
        if not isinstance(item, dict):
            out.fault(where, "a peer is an object")
            continue
        for unknown in item.keys() - {"podSelector", "namespaceSelector", "ipBlock"}:
            out.fault(
                f"{where}.{unknown}", "unknown field; allowed are podSelector, namespaceSelector, ipBlock"
            )
        pods, namespaces, block = (item.get(n) for n in ("podSelector", "namespaceSelector", "ipBlock"))
        if block is not None:
            if pods is not None or namespaces is not None:
                out.fault(where, "ipBlock cannot be combined with a selector")
            out.gap(f"{where}.ipBlock", "address blocks are not enforced by this version")
        elif pods is None and namespaces is None:
            out.fault(where, "needs podSelector, namespaceSelector or ipBlock")
        else:
            found.append(
                kubernetes_peer(
                    None if pods is None else requirements(pods, f"{where}.podSelector", out, source=K8S),
                    None
                    if namespaces is None
                    else requirements(namespaces, f"{where}.namespaceSelector", out, source=K8S),
                    resource.namespace,
                )
            )
    return tuple(found)
