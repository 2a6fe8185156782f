"""Who the peers of one rule of a Cilium policy are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cirri.engine.cidr import read_cidr_set, read_cidrs
from cirri.engine.labelselector import is_subdomain, requirements
from cirri.engine.names import canonical_name, name_complaint
from cirri.engine.payload import Place
from cirri.engine.rule import Findings, Reference, ServiceReference
from cirri.engine.scope import ENTITY_NAMES, entity, node_peer, peer
from cirri.engine.select import Requirement, Selector

INGRESS = ("Endpoints", "Requires", "Entities", "Nodes", "CIDR", "CIDRSet", "Groups")
MEMBERS = {"ingress": INGRESS, "egress": (*INGRESS, "Services", "FQDNs")}

_NODES = "nodes themselves learn no names in this version: nobody is selected"
_GROUPS = "cloud provider groups are not supported"


@dataclass(frozen=True, slots=True)
class Peers:
    """What the members of one rule say together."""

    selectors: tuple[Selector, ...] | None = None
    """None: the rule names no peers, so that everybody is one."""
    refers: tuple[Reference, ...] = ()
    endpoints: bool = False
    requires: tuple[Requirement, ...] = ()
    named: bool = False
    """A member that names peers is there, be it empty."""

    @property
    def nobody(self) -> bool:
        """No peer can ever be meant."""
        return self.selectors == () and not self.refers


def side(direction: str) -> str:
    """What the names of peer members begin with in *direction*."""
    return "from" if direction == "ingress" else "to"


def member_names(place: Place) -> set[str]:
    """The fields of a rule at *place* that name peers."""
    return {f"{side(place.direction)}{each}" for each in MEMBERS[place.direction]}


def read_peers(
    item: dict[str, Any], path: str, out: Findings, place: Place, *, subject_is_init: bool = False
) -> Peers:
    """Peers of the rule *item*: at most one member may name some, and an empty one names nobody."""
    reader = _Reader(out, place, subject_is_init)
    members: dict[str, list[Any]] = {}
    for name in sorted(member_names(place) & item.keys()):
        if isinstance(item[name], list):
            members[name] = item[name]
        elif item[name] is not None:
            out.fault(f"{path}.{name}", "must be a list")
    constraint = members.pop(f"{side(place.direction)}Requires", [])
    requires = reader.constraint(constraint, f"{path}.{side(place.direction)}Requires")
    filled = [name for name, value in members.items() if value]
    if len(filled) > 1:
        both = " and ".join(filled)
        out.fault(path, f"{both} cannot be combined in one rule: write one rule for each")
    if requires and not members and (item.get("toPorts") or item.get("icmps")):
        out.fault(
            f"{path}.{side(place.direction)}Requires",
            f"with ports alone it would open them to everybody: add {side(place.direction)}Endpoints",
        )
    found = Peers()
    for name in filled:
        found = reader.read(name.removeprefix("from").removeprefix("to"), members[name], f"{path}.{name}")
    if len(filled) < len(members):
        found = Peers(selectors=())
    return Peers(found.selectors, found.refers, found.endpoints, requires, bool(members))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the members of one rule."""

    out: Findings
    place: Place
    subject_is_init: bool

    @property
    def cluster(self) -> str:
        """The cluster that peers belong to unless they say."""
        config = self.place.config
        return config.cluster if config.local_cluster else ""

    def read(self, member: str, items: list[Any], path: str) -> Peers:
        """Peers of a member that has *items*."""
        config = self.place.config
        match member:
            case "Endpoints":
                return Peers(tuple(self._endpoints(items, path)), endpoints=True)
            case "Entities":
                return Peers(self._entities(items, path))
            case "Nodes":
                return Peers(self._nodes(items, path))
            case "CIDR":
                return Peers(read_cidrs(items, path, self.out, nodes=config.nodes_by_cidr))
            case "CIDRSet":
                return Peers(*read_cidr_set(items, path, self.out, nodes=config.nodes_by_cidr))
            case "Services":
                found = (self._service(each, f"{path}[{index}]") for index, each in enumerate(items))
                return Peers((), tuple(each for each in found if each is not None))
            case "FQDNs":
                if self.place.node:
                    self.out.gap(path, _NODES)
                return Peers(tuple(self._names(items, path)))
            case _:
                self.out.gap(path, _GROUPS)
                # What is not understood allows nobody and denies everybody.
                return Peers() if self.place.deny else Peers(())

    def constraint(self, items: list[Any], path: str) -> tuple[Requirement, ...]:
        """What ``from/toRequires`` asks of every endpoint."""
        selectors = self._endpoints(items, path, constraint=True)
        return tuple(one for each in selectors for alternative in each.alternatives for one in alternative)

    def _endpoints(self, items: list[Any], path: str, *, constraint: bool = False) -> list[Selector]:
        return [
            peer(
                requirements(each, f"{path}[{index}]", self.out),
                self.place.namespace,
                self.cluster,
                subject_is_init=self.subject_is_init,
                constraint=constraint,
            )
            for index, each in enumerate(items)
        ]

    def _entities(self, items: list[Any], path: str) -> tuple[Selector, ...] | None:
        found: list[Selector] = []
        everybody = False
        for index, name in enumerate(items):
            if name not in ENTITY_NAMES:
                self.out.fault(f"{path}[{index}]", f"{name!r} is not one of {', '.join(ENTITY_NAMES)}")
                continue
            selected = entity(name, self.place.config.cluster)
            everybody = everybody or selected is None
            found += selected or ()
        return None if everybody else tuple(found)

    def _nodes(self, items: list[Any], path: str) -> tuple[Selector, ...]:
        if not self.place.config.nodes_by_labels:
            self.out.fault(path, 'needs enable-node-selector-labels: "true" in cirri-config')
        return tuple(
            node_peer(requirements(each, f"{path}[{index}]", self.out)) for index, each in enumerate(items)
        )

    def _service(self, value: Any, path: str) -> ServiceReference | None:
        if not isinstance(value, dict) or len(value) > 1:
            self.out.fault(path, "is an object with k8sService or k8sServiceSelector")
        if not isinstance(value, dict) or len(value) != 1:
            return None
        ((kind, entry),) = value.items()
        wanted = {"k8sService": "serviceName", "k8sServiceSelector": "selector"}.get(kind)
        if wanted is None:
            self.out.fault(f"{path}.{kind}", "unknown field; allowed are k8sService, k8sServiceSelector")
            return None
        if not isinstance(entry, dict):
            self.out.fault(f"{path}.{kind}", f"is an object with {wanted} and namespace")
            return None
        for unknown in entry.keys() - {wanted, "namespace"}:
            self.out.fault(f"{path}.{kind}.{unknown}", f"unknown field; allowed are {wanted}, namespace")
        namespace = entry.get("namespace") or ""
        if namespace and not _is_name(namespace):
            self.out.fault(f"{path}.{kind}.namespace", f"{namespace!r} is not the name of a namespace")
        if kind == "k8sServiceSelector":
            found = requirements(entry.get("selector"), f"{path}.{kind}.selector", self.out)
            return ServiceReference(str(namespace), labels=tuple(found), cluster=self.cluster)
        name = entry.get("serviceName")
        if not _is_name(name):
            self.out.fault(f"{path}.{kind}.serviceName", f"{name!r} is not the name of a Service")
        return ServiceReference(str(namespace), name=str(name), cluster=self.cluster)

    def _names(self, items: list[Any], path: str) -> Iterator[Selector]:
        """Addresses that were learnt for the names, as :meth:`Selector.learnt`."""
        for index, each in enumerate(items):
            where = f"{path}[{index}]"
            if not isinstance(each, dict) or len(each.keys() & {"matchName", "matchPattern"}) != 1:
                self.out.fault(where, "exactly one of matchName, matchPattern is needed")
                continue
            for name, text in each.items():
                if name not in {"matchName", "matchPattern"}:
                    self.out.fault(f"{where}.{name}", "unknown field; allowed are matchName, matchPattern")
                elif not isinstance(text, str) or name_complaint(text, pattern=name == "matchPattern"):
                    self.out.fault(f"{where}.{name}", f"{text!r} is not a DNS name or pattern")
                else:
                    yield Selector.learnt(canonical_name(text))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and is_subdomain(value)
