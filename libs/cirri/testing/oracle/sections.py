"""What the objects say about one subject and direction (sections 6, 8, 12, 19)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from cirri.testing.oracle import selectors
from cirri.testing.oracle.peers import Peers, kubernetes_peers, peers
from cirri.testing.oracle.ports import Ports, kubernetes_ports, ports_of
from cirri.testing.oracle.selectors import Scope, Test
from cirri.testing.oracle.world import Manifest, Seen, World

CLUSTERWIDE = "CiliumClusterwideNetworkPolicy"
AUDIT = "policy.cirri.io/audit-mode"


class Item(NamedTuple):
    """One L3 entry with the ports of its rule."""

    deny: bool
    peers: Peers
    ports: list[Ports] | None
    auth: str
    """What the rule says; "": nothing."""


class Section(NamedTuple):
    """Everything that is said about a direction."""

    said: bool
    """Some rule has the section."""
    default_deny: bool
    items: list[Item]


class _Spec(NamedTuple):
    """One spec that selects the subject and has the section."""

    kubernetes: bool
    scope: Scope
    default_deny: bool
    rules: list[tuple[bool, dict[str, Any]]]
    """(is a deny, the rule)."""


def section(world: World, party: Seen, direction: str, *, audit: bool) -> Section:
    """What is said about *direction* of the subject *party*; with *audit*, by objects in audit mode too."""
    specs = [
        spec
        for manifest in world.manifests
        if audit or (manifest["metadata"].get("annotations") or {}).get(AUDIT) != "enabled"
        for spec in _specs(world, manifest, party, direction)
    ]
    side = "from" if direction == "ingress" else "to"
    items = []
    for deny in (False, True):
        requirements = _requirements(specs, side, deny=deny)
        for spec in specs:
            for denies, rule in spec.rules:
                if denies != deny:
                    continue
                if spec.kubernetes:
                    found = kubernetes_peers(rule.get(side), spec.scope, requirements)
                    ports = kubernetes_ports(rule.get("ports"))
                else:
                    found = peers(world, rule, side, spec.scope, requirements)
                    ports = ports_of(rule)
                auth = (rule.get("authentication") or {}).get("mode", "")
                items += [Item(deny, each, ports, auth) for each in found]
    return Section(bool(specs), any(spec.default_deny for spec in specs), items)


def _requirements(specs: list[_Spec], side: str, *, deny: bool) -> list[Test]:
    return [
        selectors.peer(each, spec.scope, requirement=True)
        for spec in specs
        for denies, rule in spec.rules
        if denies == deny and not spec.kubernetes
        for each in rule.get(f"{side}Requires") or []
    ]


def _specs(world: World, manifest: Manifest, party: Seen, direction: str) -> Iterator[_Spec]:
    kind, metadata = manifest["kind"], manifest["metadata"]
    cluster = world.cluster if world.config.get("policy-default-local-cluster", "true") == "true" else ""
    if kind == "NetworkPolicy":
        scope = Scope(metadata["namespace"], cluster)
        yield from _kubernetes(manifest["spec"], scope, party, direction)
    elif kind in {"CiliumNetworkPolicy", CLUSTERWIDE}:
        namespace = "" if kind == CLUSTERWIDE else metadata["namespace"]
        one, several = manifest.get("spec"), manifest.get("specs")
        for spec in ([one] if one else []) + (several or []):
            yield from _cilium(world, spec, Scope(namespace, cluster), party, direction)


def _cilium(world: World, spec: dict[str, Any], scope: Scope, party: Seen, direction: str) -> Iterator[_Spec]:
    if "nodeSelector" in spec:
        test = selectors.node(spec["nodeSelector"])
    else:
        test = selectors.subject(spec["endpointSelector"], scope.namespace)
        scope = scope._replace(init=("reserved", "init") in selectors.keys(spec["endpointSelector"]))
    rules = [(False, rule) for rule in spec.get(direction) or []]
    rules += [(True, rule) for rule in spec.get(f"{direction}Deny") or []]
    if not rules or not test(party):
        return
    wanted = (spec.get("enableDefaultDeny") or {}).get(direction) is not False
    forced = world.config.get("enable-non-default-deny-policies", "true") == "false"
    yield _Spec(False, scope, wanted or forced, rules)


def _kubernetes(spec: dict[str, Any], scope: Scope, party: Seen, direction: str) -> Iterator[_Spec]:
    types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    test = selectors.subject(selectors.sourced(spec.get("podSelector") or {}), scope.namespace)
    if direction.capitalize() in types and test(party):
        yield _Spec(True, scope, True, [(False, rule) for rule in spec.get(direction) or []])
