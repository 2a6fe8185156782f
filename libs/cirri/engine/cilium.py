"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy, one rule set for each spec."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from cirri.engine.config import EngineConfig
from cirri.engine.labelselector import requirements
from cirri.engine.origin import origin
from cirri.engine.payload import Place, authentication
from cirri.engine.portrule import port_parts
from cirri.engine.rule import PLAIN, Findings, ObjectRule, Section, Term
from cirri.engine.scope import ENTITY_NAMES, K8S, entity, peer, subject
from cirri.engine.select import Selector
from cirri.labels import NAMESPACE_KEY
from cirri.labels.label import split_key
from cirri.model import Resource

Side = Literal["ingress", "egress"]
CLUSTERWIDE = "CiliumClusterwideNetworkPolicy"

SECTIONS = ("ingress", "ingressDeny", "egress", "egressDeny")

_SPEC = {"endpointSelector", "nodeSelector", *SECTIONS, "labels", "description", "enableDefaultDeny", "log"}
_PEERS = {
    "ingress": ("Endpoints", "Requires", "Entities", "Nodes", "CIDR", "CIDRSet", "Groups"),
    "egress": (
        "Endpoints",
        "Requires",
        "Entities",
        "Nodes",
        "CIDR",
        "CIDRSet",
        "Groups",
        "Services",
        "FQDNs",
    ),
}
_LATER = {
    "Requires": "requirements on peers are not enforced by this version",
    "Nodes": "node peers are not enforced by this version",
    "CIDR": "address peers are not enforced by this version",
    "CIDRSet": "address peers are not enforced by this version",
    "Groups": "cloud provider groups are not supported",
    "Services": "service peers are not enforced by this version",
    "FQDNs": "names as peers are not enforced by this version",
}


class Reader:
    """Reads the specs of one object."""

    def __init__(self, resource: Resource, config: EngineConfig, out: Findings) -> None:
        self.resource = resource
        self.namespace = "" if resource.kind == CLUSTERWIDE else resource.namespace or "default"
        self.config = config
        self.out = out
        self.subject_is_init = False
        self.subject_is_node = False

    def rules(self) -> list[ObjectRule]:
        """Rule sets of ``spec`` and of each of ``specs``."""
        manifest = self.resource.manifest
        one, many = manifest.get("spec"), manifest.get("specs")
        if one is None and not many:
            self.out.fault("spec", "neither spec nor specs is given: nothing to enforce")
            return []
        found = [self._spec(one, "spec")] if one is not None else []
        if many and not isinstance(many, list):
            self.out.fault("specs", "must be a list")
        elif many:
            found += [self._spec(each, f"specs[{index}]") for index, each in enumerate(many)]
        return [rule for rule in found if rule is not None]

    def _spec(self, spec: Any, path: str) -> ObjectRule | None:
        if not isinstance(spec, dict):
            self.out.fault(path, "must be an object")
            return None
        for unknown in spec.keys() - _SPEC:
            self.out.fault(f"{path}.{unknown}", f"unknown field; allowed are {', '.join(sorted(_SPEC))}")
        if not any(spec.get(name) for name in SECTIONS):
            self.out.fault(path, f"needs a rule in one of {', '.join(SECTIONS)}")
        selector = self._subject(spec, path)
        ingress = self._direction(spec, "ingress", path)
        egress = self._direction(spec, "egress", path)
        return ObjectRule(selector, ingress, egress) if selector is not None else None

    def _subject(self, spec: dict[str, Any], path: str) -> Selector | None:
        endpoints, nodes = spec.get("endpointSelector"), spec.get("nodeSelector")
        self.subject_is_init = False
        self.subject_is_node = nodes is not None
        if nodes is not None:
            if endpoints is not None:
                self.out.fault(f"{path}.nodeSelector", "cannot be combined with endpointSelector")
            elif self.namespace:
                self.out.fault(f"{path}.nodeSelector", f"only a {CLUSTERWIDE} can select nodes")
            self.out.gap(f"{path}.nodeSelector", "policies of nodes are not enforced by this version")
            return None
        if endpoints is None:
            self.out.fault(f"{path}.endpointSelector", "is required; {} selects every endpoint")
            return None
        if self.namespace and isinstance(endpoints, dict) and isinstance(endpoints.get("matchLabels"), dict):
            # A namespace under the k8s source cannot be contradicted: the policy's own replaces it.
            own = {
                key: value
                for key, value in endpoints["matchLabels"].items()
                if split_key(str(key), default="any") != (K8S, NAMESPACE_KEY)
            }
            endpoints = endpoints | {"matchLabels": own}
        user = requirements(endpoints, f"{path}.endpointSelector", self.out)
        self.subject_is_init = any((one.source, one.key) == ("reserved", "init") for one in user)
        return subject(user, self.namespace)

    def _direction(self, spec: dict[str, Any], direction: Side, path: str) -> Section:
        allow = self._section(spec, direction, direction, path, deny=False)
        deny = self._section(spec, f"{direction}Deny", direction, path, deny=True)
        section = Section(
            present=allow.present or deny.present,
            default_deny=True,
            terms=allow.terms + deny.terms,
            origins=allow.origins + deny.origins,
        )
        wanted = spec.get("enableDefaultDeny") or {}
        if not isinstance(wanted, dict) or not isinstance(wanted.get(direction, True), bool | None):
            self.out.fault(f"{path}.enableDefaultDeny", "is an object with ingress and egress, true or false")
            return section
        for unknown in wanted.keys() - {"ingress", "egress"}:
            self.out.fault(
                f"{path}.enableDefaultDeny.{unknown}", "unknown field; allowed are ingress, egress"
            )
        return replace(
            section, default_deny=wanted.get(direction) is not False or not self.config.non_default_deny
        )

    def _section(self, spec: dict[str, Any], name: str, direction: Side, path: str, *, deny: bool) -> Section:
        items = spec.get(name) or []
        if not isinstance(items, list):
            self.out.fault(f"{path}.{name}", "must be a list")
            return Section()
        terms: list[Term] = []
        origins = []
        constrained = False
        for index, item in enumerate(items):
            where = f"{path}.{name}[{index}]"
            source = origin(self.resource, where)
            origins.append(source)
            if not isinstance(item, dict):
                self.out.fault(where, "a rule is an object")
                continue
            peers, constraint = self._peers(item, where, direction, deny=deny)
            constrained = constrained or constraint
            place = Place(direction, self.config, deny, self.namespace, self.subject_is_node)
            parts = port_parts(item, where, self.out, place)
            auth = authentication(item, where, self.out, place)
            named = (f"{_side(direction)}{each}" for each in _PEERS[direction] if each != "Requires")
            says_something = any(item.get(name) is not None for name in named) or parts is not None
            if (says_something or constraint) and peers != ():
                for ports, payload in parts if parts is not None else [(None, PLAIN)]:
                    terms.append(Term(source, peers, ports, deny, replace(payload, auth=auth)))
        if constrained and not deny:
            # The constraint narrows every allow of the section; without it none may stand.
            terms = []
        return Section(present=bool(items), terms=tuple(terms), origins=tuple(origins))

    def _peers(
        self, item: dict[str, Any], path: str, direction: str, *, deny: bool
    ) -> tuple[tuple[Selector, ...] | None, bool]:
        """Peers of one rule (None: any), and whether it has a constraint that is not enforced."""
        side = _side(direction)
        allowed = {f"{side}{each}" for each in _PEERS[direction]} | {"toPorts", "icmps"}
        allowed -= {f"{side}FQDNs"} if deny else set()
        allowed |= set() if deny else {"authentication"}
        for unknown in item.keys() - allowed:
            self.out.fault(f"{path}.{unknown}", f"unknown field; allowed are {', '.join(sorted(allowed))}")
        members: dict[str, list[Any]] = {}
        for each in _PEERS[direction]:
            value = item.get(f"{side}{each}")
            if value is None or f"{side}{each}" not in allowed:
                continue
            if isinstance(value, list):
                members[each] = value
            else:
                self.out.fault(f"{path}.{side}{each}", "must be a list")
        filled = [each for each, value in members.items() if value and each != "Requires"]
        if len(filled) > 1:
            both = " and ".join(f"{side}{each}" for each in filled)
            self.out.fault(path, f"{both} cannot be combined in one rule: write one rule for each")
        peers: tuple[Selector, ...] | None = None
        for each, value in members.items():
            if value and each in _LATER:
                self.out.gap(f"{path}.{side}{each}", _LATER[each])
                # What is not understood allows nobody and denies everybody.
                peers = peers if deny else ()
            elif each == "Endpoints" and value:
                peers = self._endpoints(value, f"{path}.{side}{each}")
            elif each == "Entities" and value:
                peers = self._entities(value, f"{path}.{side}{each}")
        if any(not value for each, value in members.items() if each != "Requires"):
            peers = ()  # an empty list selects nobody
        return peers, bool(members.get("Requires"))

    def _endpoints(self, items: list[Any], path: str) -> tuple[Selector, ...]:
        return tuple(
            peer(
                requirements(each, f"{path}[{index}]", self.out),
                self.namespace,
                subject_is_init=self.subject_is_init,
            )
            for index, each in enumerate(items)
        )

    def _entities(self, items: list[Any], path: str) -> tuple[Selector, ...] | None:
        found: list[Selector] = []
        everybody = False
        for index, name in enumerate(items):
            if name not in ENTITY_NAMES:
                self.out.fault(f"{path}[{index}]", f"{name!r} is not one of {', '.join(ENTITY_NAMES)}")
                continue
            selected = entity(name, self.config.cluster)
            everybody = everybody or selected is None
            found += selected or ()
        return None if everybody else tuple(found)


def _side(direction: str) -> str:
    return "from" if direction == "ingress" else "to"
