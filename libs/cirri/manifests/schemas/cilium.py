"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy: the whole language, strict everywhere.

A typo in a policy is never ignored, because the rule without it would be wider than meant.
What the engine does not enforce yet is still described here; refusing it is the engine's word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cirri.manifests.problems import listed
from cirri.manifests.schema import BOOLEAN, TEXT, Fault, Fields, Items, Spec, Text, with_fields
from cirri.manifests.schemas.cilium_l3 import EGRESS_MEMBERS, INGRESS_MEMBERS, NAMES
from cirri.manifests.schemas.cilium_l4 import DENY_PORTS, EGRESS_PORTS, ICMPS, INGRESS_PORTS
from cirri.manifests.schemas.meta import SOURCED_SELECTOR, STATUS, metadata

SECTIONS = ("ingress", "ingressDeny", "egress", "egressDeny")

_AUTHENTICATION = Fields(
    {"mode": Text(choices=("disabled", "required", "test-always-fail"))}, required=("mode",)
)

_MEMBERS = tuple(
    prefix + member
    for prefix in ("from", "to")
    for member in ("Endpoints", "Entities", "Nodes", "CIDR", "CIDRSet", "Groups", "Services", "FQDNs")
)


def _one_member(rule: Mapping[str, Any]) -> Iterator[Fault]:
    """V20; empty lists do not count, they void the rule (policy 8.2)."""
    used = [member for member in _MEMBERS if rule.get(member)]
    if len(used) > 1:
        yield (used[1],), f"cannot be combined with {used[0]} in one rule; write two rules"
    if rule.get("toPorts") and rule.get("icmps"):
        yield ("icmps",), "cannot be combined with toPorts in one rule; write two rules"
    peers = any(member in rule for member in _MEMBERS)
    for requires in ("fromRequires", "toRequires"):
        if rule.get(requires) and not peers and (rule.get("toPorts") or rule.get("icmps")):
            yield (
                (requires,),
                "with ports alone it would open them to everybody; add "
                f"{'fromEndpoints' if requires == 'fromRequires' else 'toEndpoints'}",
            )


def _rule(members: Mapping[str, Spec], ports: Spec, absent: Mapping[str, str]) -> Fields:
    return Fields(
        {**members, "toPorts": ports, "icmps": ICMPS, "authentication": _AUTHENTICATION},
        rules=(_one_member,),
        absent=absent,
    )


def _without(rule: Fields, ports: Spec, *gone: str) -> Fields:
    """The deny form of *rule*."""
    kept = {name: spec for name, spec in rule.fields.items() if name not in gone}
    says = dict.fromkeys(gone, "not allowed in a deny rule, which names peers and ports only")
    return Fields({**kept, "toPorts": ports}, rules=rule.rules, absent={**rule.absent, **says})


_ONLY_EGRESS = {
    name: f"peers of an ingress rule are in from...; {name} belongs to egress" for name in EGRESS_MEMBERS
}
_ONLY_INGRESS = {
    name: f"peers of an egress rule are in to...; {name} belongs to ingress" for name in INGRESS_MEMBERS
}
_INGRESS = _rule(INGRESS_MEMBERS, INGRESS_PORTS, _ONLY_EGRESS)
_EGRESS = _rule(EGRESS_MEMBERS, EGRESS_PORTS, _ONLY_INGRESS)


def _section(spec: Mapping[str, Any]) -> Iterator[Fault]:
    if not any(spec.get(section) for section in SECTIONS):
        yield (), f"has no rule; at least one of {listed(SECTIONS)} needs an element"


def _subject(spec: Mapping[str, Any]) -> Iterator[Fault]:
    if "endpointSelector" not in spec and "nodeSelector" not in spec:
        yield ("endpointSelector",), "required, but missing; {} selects every endpoint"
    if "endpointSelector" in spec and "nodeSelector" in spec:
        yield ("nodeSelector",), "cannot be combined with endpointSelector; write two policies"


def _host_l7(spec: Mapping[str, Any]) -> Iterator[Fault]:
    """V74, V75: a node has no L7 proxy in front of it."""
    if "nodeSelector" not in spec:
        return
    for section in ("ingress", "egress"):
        for i, rule in enumerate(spec.get(section, [])):
            for j, ports in enumerate(rule.get("toPorts", [])):
                rules = ports.get("rules", {})
                kinds = [kind for kind in rules if section == "ingress" or kind != "dns"]
                if kinds:
                    allowed = "only dns is" if section == "egress" else "no L7 rule is"
                    yield (
                        (section, i, "toPorts", j, "rules", kinds[0]),
                        f"{allowed} supported for nodes in this direction",
                    )


_LABEL = Fields({"key": Text(low=1), "value": TEXT, "source": TEXT}, required=("key",))


def _printable(text: str) -> str:
    return "" if text.isprintable() and text.isascii() else "allowed: printable ASCII characters only"


_SPEC = Fields(
    {
        "endpointSelector": SOURCED_SELECTOR,
        "ingress": Items(_INGRESS),
        "ingressDeny": Items(_without(_INGRESS, DENY_PORTS, "authentication")),
        "egress": Items(_EGRESS),
        "egressDeny": Items(_without(_EGRESS, DENY_PORTS, "authentication")),
        "enableDefaultDeny": Fields({"ingress": BOOLEAN, "egress": BOOLEAN}),
        "labels": Items(_LABEL),
        "description": TEXT,
        "log": Fields({"value": Text(high=32, test=_printable)}),
    },
    rules=(_subject, _section),
    absent={
        "nodeSelector": "node policies are cluster-wide: use kind CiliumClusterwideNetworkPolicy",
        "podSelector": 'belongs to NetworkPolicy; here the field is "endpointSelector"',
        "policyTypes": "belongs to NetworkPolicy; here a section that is present is enforced",
    },
)
_CLUSTERWIDE_SPEC = with_fields(
    _SPEC,
    fields={"nodeSelector": SOURCED_SELECTOR},
    rules=(_subject, _section, _host_l7),
    absent={name: text for name, text in _SPEC.absent.items() if name != "nodeSelector"},
)


def _something(policy: Mapping[str, Any]) -> Iterator[Fault]:
    if "spec" not in policy and not policy.get("specs"):
        yield ("spec",), "required, but missing (or specs, a list of them): nothing would be enforced"


def _policy(kind: str, *, namespaced: bool, spec: Fields) -> Fields:
    misplaced = dict.fromkeys(NAMES.union(spec.fields), "belongs into spec; check the indentation")
    return Fields(
        {
            "apiVersion": TEXT,
            "kind": TEXT,
            "metadata": metadata(kind, namespaced=namespaced),
            "spec": spec,
            "specs": Items(spec),
            "status": STATUS,
        },
        required=("metadata",),
        rules=(_something,),
        absent=misplaced,
    )


CILIUM_NETWORK_POLICY = _policy("CiliumNetworkPolicy", namespaced=True, spec=_SPEC)
CILIUM_CLUSTERWIDE_NETWORK_POLICY = _policy(
    "CiliumClusterwideNetworkPolicy", namespaced=False, spec=_CLUSTERWIDE_SPEC
)
