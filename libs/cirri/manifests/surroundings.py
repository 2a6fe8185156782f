"""What makes a valid policy suspicious in this cluster: it names what is not there, or nobody."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from ipaddress import ip_network
from typing import Any

from cirri.addresses import InvalidPools, cluster_pools
from cirri.engine import CONTEXT_KINDS, EngineConfig, InvalidConfig, InvalidPolicy, Term, rules
from cirri.engine.bind import port_key
from cirri.engine.context import Context
from cirri.engine.rule import GroupReference
from cirri.engine.span import Span, span
from cirri.labels import PORT, InvalidLabelFilter, Label, LabelFilter, pod_labels
from cirri.labels.prefixes import Network
from cirri.model import Resource
from cirri.model.config import CONFIG, config_data
from cirri.model.resource import resource_key

Range = tuple[Network, str]
"""A prefix and whose addresses are in it."""


class Surroundings:
    """The other objects of the cluster; looked at only where a policy asks for it."""

    def __init__(self, resources: Collection[Resource], data: Mapping[str, str] | None = None) -> None:
        """*data* is the configuration, if *resources* do not hold it."""
        self._resources = resources
        self._given = data

    @cached_property
    def filter(self) -> LabelFilter:
        """Which labels count here."""
        try:
            return LabelFilter.parse(self._data.get("labels", "").split())
        except InvalidLabelFilter:
            return LabelFilter.parse()

    @cached_property
    def _data(self) -> Mapping[str, str]:
        if self._given is not None:
            return self._given
        keyed = ((resource_key(one.kind, one.namespace, one.name), one) for one in self._resources)
        return config_data({key: one for key, one in keyed if key == CONFIG})

    @cached_property
    def _config(self) -> EngineConfig:
        try:
            return EngineConfig.of(self._data)
        except InvalidConfig:
            return EngineConfig()

    @cached_property
    def _context(self) -> Context:
        found = Context()
        for one in self._resources:
            if one.kind in CONTEXT_KINDS:
                found.update(one)
        return found

    @cached_property
    def _ports(self) -> set[str]:
        """Keys of the ports that pods name."""
        pods = (pod_labels(one, None, "") for one in self._resources if one.kind == "Pod")
        labels = (Label.parse(text) for pod in pods for text in pod)
        return {label.key for label in labels if label.source == PORT}

    @cached_property
    def _ranges(self) -> list[Range]:
        nodes = () if self._config.nodes_by_cidr else _addresses(self._resources)
        return [*_pools(self._data), *nodes]

    def suspicions(self, policy: Resource) -> Iterator[tuple[str, str]]:
        """Field path and sentence for each part of *policy* that selects nothing here."""
        try:
            found = rules(policy, self._config)
        except InvalidPolicy as error:
            # Valid in another cluster: a feature that it uses is switched off here.
            for path, says in error.faults:
                yield path, f"{says}; the policy is not in force until then"
            return
        if any(rule.node for rule in found) and not self._config.host_firewall:
            yield "nodeSelector", 'nodes are under no policy: enable-host-firewall in cirri-config is "false"'
        for rule in found:
            for term in (*rule.ingress.terms, *rule.egress.terms):
                for says in dict.fromkeys((*self._absent(term), *self._inside(term), *self._unnamed(term))):
                    yield term.origin.section, says

    def _absent(self, term: Term) -> Iterator[str]:
        for reference in term.refers:
            named = f' "{reference.name}"' if reference.labels is None else " with these labels"
            if isinstance(reference, GroupReference):
                if not self._context.has_group(reference):
                    yield f"there is no CiliumCIDRGroup{named}: it selects nobody until there is one"
            elif not any(self._context.services(reference)):
                yield f"there is no Service{named}: it selects nobody until there is one"

    def _inside(self, term: Term) -> Iterator[str]:
        for prefix in _prefixes(term):
            for outer, whose in self._ranges:
                if prefix.inside(span(outer)):
                    yield f"no prefix in {outer} selects anybody: these are addresses of {whose}"

    def _unnamed(self, term: Term) -> Iterator[str]:
        named: dict[str, set[str]] = {}
        for ports in term.ports or ():
            if ports.name:
                named.setdefault(ports.name, set()).add(port_key(ports))
        for name, keys in named.items():
            # Without a protocol a name has three keys, of which pods have one.
            if self._ports.isdisjoint(keys):
                yield f'no pod has a port with the name "{name}" and this protocol'


def _prefixes(term: Term) -> Iterator[Span]:
    for peer in term.peers or ():
        for alternative in peer.alternatives:
            yield from (one.span for one in alternative if one.operator == "Within")


def _pools(data: Mapping[str, str]) -> Iterator[Range]:
    try:
        pools = cluster_pools(data)
    except InvalidPools:
        return
    for pool in pools.enabled:
        yield from ((prefix, "pods") for prefix in pool.cidrs)
    yield from ((prefix, "Services") for prefix in pools.services)


def _addresses(resources: Iterable[Resource]) -> Iterator[Range]:
    for node in (one for one in resources if one.kind == "Node"):
        status: Any = node.manifest.get("status") or {}
        for address in status.get("addresses") or ():
            if address.get("type") == "InternalIP":
                yield ip_network(address["address"]), "nodes"
