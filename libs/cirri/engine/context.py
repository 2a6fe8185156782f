"""What policies name and do not hold themselves: CIDR groups, Services and the addresses behind them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cirri.engine.cidr import prefix_selector
from cirri.engine.rule import GroupReference, Reference, ServiceReference
from cirri.engine.select import LabelSet, Selector
from cirri.labels.prefixes import Network, parse_prefix
from cirri.model import Resource, resource_key

CONTEXT_KINDS = ("CiliumCIDRGroup", "Service", "EndpointSlice")
"""Kinds that policies refer to."""

SERVICE_NAME = "kubernetes.io/service-name"
"""Label of an EndpointSlice with the name of its Service."""


REMEMBERED = 256
"""References to groups whose prefixes are put together once."""


@dataclass(frozen=True)
class Group:
    """A CiliumCIDRGroup."""

    name: str
    labels: Mapping[str, str]
    prefixes: tuple[Network, ...]


@dataclass(frozen=True)
class Service:
    """A Service, as far as it says who stands behind it."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    selector: Mapping[str, str]
    """Empty: its backends are whatever its EndpointSlices list."""


@dataclass(frozen=True)
class Slice:
    """An EndpointSlice."""

    namespace: str
    service: str
    addresses: frozenset[Network]


@dataclass
class Context:
    """Takes over objects of :data:`CONTEXT_KINDS`; each change says whose meaning it may have changed.

    A policy depends on the names that :func:`names_of` gives of what it refers to.
    """

    _groups: dict[str, Group] = field(default_factory=dict)
    _services: dict[str, Service] = field(default_factory=dict)
    _slices: dict[str, Slice] = field(default_factory=dict)
    _slices_of: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    _selectors: dict[GroupReference, Selector] = field(default_factory=dict)
    """What references meant when they were asked for; large groups are not put together twice."""

    def update(self, resource: Resource) -> set[str]:
        """Take over *resource*; the names that mean something else now."""
        key = resource_key(resource.kind, resource.namespace, resource.name, resource.node)
        match resource.kind:
            case "CiliumCIDRGroup":
                return self._put_group(key, _group(resource))
            case "Service":
                return self._put_service(key, _service(resource))
            case _:
                return self._put_slice(key, _slice(resource))

    def delete(self, key: str) -> set[str]:
        """Forget the object with resource key *key*; the names that mean something else now."""
        return self._put_group(key, None) | self._put_service(key, None) | self._put_slice(key, None)

    def has_group(self, reference: GroupReference) -> bool:
        """Whether there is a group that *reference* means."""
        return any(_is_meant(reference, one.name, one.labels, "cidrgroup") for one in self._groups.values())

    def group_selector(self, reference: GroupReference) -> Selector:
        """Addresses in the groups that *reference* means."""
        if (found := self._selectors.get(reference)) is None:
            prefixes = {
                prefix
                for group in self._groups.values()
                if _is_meant(reference, group.name, group.labels, "cidrgroup")
                for prefix in group.prefixes
            }
            found = prefix_selector(prefixes, reference.holes, nodes=reference.nodes)
            if len(self._selectors) == REMEMBERED:
                self._selectors.clear()
            self._selectors[reference] = found
        return found

    def services(self, reference: ServiceReference) -> Iterator[Service]:
        """The Services that *reference* means."""
        for service in self._services.values():
            in_namespace = reference.namespace in {"", service.namespace}
            if in_namespace and _is_meant(reference, service.name, service.labels, "k8s"):
                yield service

    def addresses(self, service: Service) -> set[Network]:
        """Backends of *service* that its EndpointSlices list, each a prefix of one address."""
        keys = self._slices_of.get((service.namespace, service.name), ())
        return {address for key in keys for address in self._slices[key].addresses}

    def _put_group(self, key: str, new: Group | None) -> set[str]:
        old = self._groups.pop(key, None)
        if new is not None:
            self._groups[key] = new
        if old == new:
            return set()
        self._selectors.clear()
        return _names("group", {each.name for each in (old, new) if each})

    def _put_service(self, key: str, new: Service | None) -> set[str]:
        old = self._services.pop(key, None)
        if new is not None:
            self._services[key] = new
        return set() if old == new else _names("service", {each.name for each in (old, new) if each})

    def _put_slice(self, key: str, new: Slice | None) -> set[str]:
        old = self._slices.pop(key, None)
        if old is not None:
            keys = self._slices_of[old.namespace, old.service]
            keys.discard(key)
            if not keys:
                del self._slices_of[old.namespace, old.service]
        if new is not None:
            self._slices[key] = new
            self._slices_of.setdefault((new.namespace, new.service), set()).add(key)
        if old == new:
            return set()
        found = {(each.namespace, each.service) for each in (old, new) if each}
        return _names("service", {name for namespace, name in found if self._lists_backends(namespace, name)})

    def _lists_backends(self, namespace: str, name: str) -> bool:
        """Whether a Service's EndpointSlices say who stands behind it."""
        service = self._services.get(resource_key("Service", namespace, name, ""))
        return service is not None and not service.selector


def names_of(references: Iterable[Reference]) -> Iterator[str]:
    """The names whose meaning *references* depend on."""
    for each in references:
        kind = "group" if isinstance(each, GroupReference) else "service"
        yield f"{kind} {each.name}" if each.labels is None else kind


def _names(kind: str, names: set[str]) -> set[str]:
    return {kind, *(f"{kind} {name}" for name in names)} if names else set()


def _is_meant(reference: Reference, name: str, labels: Mapping[str, str], source: str) -> bool:
    if reference.labels is None:
        return reference.name == name
    known = LabelSet(f"{source}:{key}={value}" for key, value in labels.items())
    return all(one.holds(known) for one in reference.labels)


def _group(resource: Resource) -> Group:
    spec = _mapping(resource.manifest.get("spec"))
    found = (parse_prefix(str(text)) for text in spec.get("externalCIDRs") or ())
    prefixes = {prefix for prefix in found if not isinstance(prefix, str)}
    return Group(resource.name, _labels(resource), tuple(sorted(prefixes, key=str)))


def _service(resource: Resource) -> Service:
    spec = _mapping(resource.manifest.get("spec"))
    selector = {str(key): str(value) for key, value in _mapping(spec.get("selector")).items()}
    return Service(resource.namespace, resource.name, _labels(resource), selector)


def _slice(resource: Resource) -> Slice:
    addresses = [
        parse_prefix(str(address))
        for endpoint in resource.manifest.get("endpoints") or ()
        if _takes_traffic(_mapping(endpoint.get("conditions")))
        for address in endpoint.get("addresses") or ()
    ]
    return Slice(
        resource.namespace,
        _labels(resource).get(SERVICE_NAME, ""),
        frozenset(address for address in addresses if not isinstance(address, str)),
    )


def _takes_traffic(conditions: Mapping[str, Any]) -> bool:
    """Unknown readiness counts as ready (the API's rule); one on its way out may be served still."""
    return conditions.get("ready") is not False or conditions.get("serving") is True


def _labels(resource: Resource) -> dict[str, str]:
    labels = _mapping(_mapping(resource.manifest.get("metadata")).get("labels"))
    return {str(key): str(value) for key, value in labels.items()}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
