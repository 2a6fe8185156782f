"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy, one rule set for each spec."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from cirri.engine.config import EngineConfig
from cirri.engine.labelselector import requirements
from cirri.engine.origin import origin
from cirri.engine.payload import Place, authentication
from cirri.engine.peers import Peers, member_names, read_peers
from cirri.engine.portrule import port_parts
from cirri.engine.rule import PLAIN, Findings, ObjectRule, Section, Term
from cirri.engine.scope import K8S, node_subject, subject
from cirri.engine.select import Requirement, Selector
from cirri.labels import NAMESPACE_KEY
from cirri.labels.label import split_key
from cirri.model import Origin, Resource

Side = Literal["ingress", "egress"]
CLUSTERWIDE = "CiliumClusterwideNetworkPolicy"

SECTIONS = ("ingress", "ingressDeny", "egress", "egressDeny")

_SPEC = {"endpointSelector", "nodeSelector", *SECTIONS, "labels", "description", "enableDefaultDeny", "log"}
LOG_LENGTH = 32


@dataclass(frozen=True, slots=True)
class _Frame:
    """What all rules of one spec have in common."""

    subject: Selector | None = None
    """None: it cannot be told."""
    node: bool = False
    """The subject is nodes."""
    init: bool = False
    """The subject is endpoints whose labels are not known yet."""
    log: str = ""


class Reader:
    """Reads the specs of one object."""

    def __init__(self, resource: Resource, config: EngineConfig, out: Findings) -> None:
        self.resource = resource
        self.namespace = "" if resource.kind == CLUSTERWIDE else resource.namespace or "default"
        self.config = config
        self.out = out

    def rules(self) -> list[ObjectRule]:
        """Rule sets of ``spec`` and of each of ``specs``."""
        manifest = self.resource.manifest
        one, many = manifest.get("spec"), manifest.get("specs")
        if one is None and not many:
            self.out.fault("spec", "neither spec nor specs is given: nothing to enforce")
            return []
        found = [self._spec(one, "spec")] if one is not None else []
        specs = self.out.items(many, "specs")
        found += [self._spec(each, f"specs[{index}]") for index, each in enumerate(specs)]
        return [rule for rule in found if rule is not None]

    def _spec(self, spec: Any, path: str) -> ObjectRule | None:
        if not isinstance(spec, dict):
            self.out.fault(path, "must be an object")
            return None
        for unknown in spec.keys() - _SPEC:
            self.out.fault(f"{path}.{unknown}", f"unknown field; allowed are {', '.join(sorted(_SPEC))}")
        if not any(spec.get(name) for name in SECTIONS):
            self.out.fault(path, f"needs a rule in one of {', '.join(SECTIONS)}")
        frame = replace(self._frame(spec, path), log=self._log(spec, path))
        ingress = self._direction(spec, "ingress", path, frame)
        egress = self._direction(spec, "egress", path, frame)
        if frame.subject is None:
            return None
        return ObjectRule(frame.subject, ingress, egress, node=frame.node)

    def _frame(self, spec: dict[str, Any], path: str) -> _Frame:
        endpoints, nodes = spec.get("endpointSelector"), spec.get("nodeSelector")
        if nodes is not None:
            if endpoints is not None:
                self.out.fault(f"{path}.nodeSelector", "cannot be combined with endpointSelector")
            elif self.namespace:
                self.out.fault(f"{path}.nodeSelector", f"only a {CLUSTERWIDE} can select nodes")
            user = requirements(nodes, f"{path}.nodeSelector", self.out)
            return _Frame(node_subject(user), node=True)
        if endpoints is None:
            self.out.fault(f"{path}.endpointSelector", "is required; {} selects every endpoint")
            return _Frame()
        if self.namespace and isinstance(endpoints, dict) and isinstance(endpoints.get("matchLabels"), dict):
            # A namespace under the k8s source cannot be contradicted: the policy's own replaces it.
            own = {
                key: value
                for key, value in endpoints["matchLabels"].items()
                if split_key(str(key), default="any") != (K8S, NAMESPACE_KEY)
            }
            endpoints = endpoints | {"matchLabels": own}
        user = requirements(endpoints, f"{path}.endpointSelector", self.out)
        init = any((one.source, one.key) == ("reserved", "init") for one in user)
        return _Frame(subject(user, self.namespace), init=init)

    def _direction(self, spec: dict[str, Any], direction: Side, path: str, frame: _Frame) -> Section:
        place = Place(direction, self.config, namespace=self.namespace, node=frame.node)
        allow = self._section(spec, direction, path, place, frame)
        deny = self._section(spec, f"{direction}Deny", path, replace(place, deny=True), frame)
        section = Section(
            present=allow.present or deny.present,
            default_deny=True,
            terms=allow.terms + deny.terms,
            origins=allow.origins + deny.origins,
            requires=allow.requires,
            deny_requires=deny.requires,
        )
        wanted = spec.get("enableDefaultDeny") or {}
        if not isinstance(wanted, dict) or not isinstance(wanted.get(direction, True), bool | None):
            self.out.fault(f"{path}.enableDefaultDeny", "is an object with ingress and egress, true or false")
            return section
        for unknown in wanted.keys() - {"ingress", "egress"}:
            self.out.fault(
                f"{path}.enableDefaultDeny.{unknown}", "unknown field; allowed are ingress, egress"
            )
        open_ = wanted.get(direction) is False and self.config.non_default_deny
        return replace(section, default_deny=not open_)

    def _section(self, spec: dict[str, Any], name: str, path: str, place: Place, frame: _Frame) -> Section:
        """What the list *name* says; what it requires is in ``requires``, be it of denies."""
        items = self.out.items(spec.get(name), f"{path}.{name}")
        terms: list[Term] = []
        origins = []
        requires: list[Requirement] = []
        fields = member_names(place) | {"toPorts", "icmps"} | (set() if place.deny else {"authentication"})
        for index, item in enumerate(items):
            where = f"{path}.{name}[{index}]"
            source = origin(self.resource, where, frame.log)
            origins.append(source)
            if not isinstance(item, dict):
                self.out.fault(where, "a rule is an object")
                continue
            for unknown in item.keys() - fields:
                self.out.fault(
                    f"{where}.{unknown}", f"unknown field; allowed are {', '.join(sorted(fields))}"
                )
            peers = read_peers(item, where, self.out, place, subject_is_init=frame.init)
            requires += peers.requires
            terms += self._terms(item, where, place, peers, source)
        return Section(bool(items), terms=tuple(terms), origins=tuple(origins), requires=tuple(requires))

    def _terms(
        self, item: dict[str, Any], path: str, place: Place, peers: Peers, source: Origin
    ) -> list[Term]:
        parts = port_parts(item, path, self.out, place)
        auth = authentication(item, path, self.out, place)
        if peers.nobody or (not peers.named and parts is None):
            return []
        return [
            Term(
                source,
                peers.selectors,
                ports,
                place.deny,
                replace(payload, auth=auth),
                peers.endpoints,
                peers.refers,
            )
            for ports, payload in (parts if parts is not None else [(None, PLAIN)])
        ]

    def _log(self, spec: dict[str, Any], path: str) -> str:
        log = spec.get("log")
        if log is None:
            return ""
        value = log.get("value", "") if isinstance(log, dict) else None
        legal = (
            isinstance(value, str) and len(value) <= LOG_LENGTH and value.isascii() and value.isprintable()
        )
        if not legal or log.keys() - {"value"}:
            says = f"is an object with value, at most {LOG_LENGTH} printable ASCII characters"
            self.out.fault(f"{path}.log", says)
            return ""
        return str(value)
