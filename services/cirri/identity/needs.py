"""From what tables say to who needs a number for which label sets.  Pure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_network
from typing import Any, NamedTuple

from cirri.engine import EngineConfig, InvalidConfig
from cirri.identity.demand import Demand, LabelSet, Use
from cirri.labels import (
    InvalidLabelFilter,
    LabelFilter,
    api_server_addresses,
    api_server_labels,
    canonical,
    node_labels,
    prefix_labels,
    reserved_number,
)
from cirri.model import Endpoint, NodeStatus, Resource, SelectorSet

KNOWN = 10_000
"""Candidate label sets whose relevant labels are remembered."""


class _Node(NamedTuple):
    """What a node's labels follow from."""

    node: Resource | None
    addresses: tuple[str, ...]
    api_server: bool


class Needs:
    """Keeps *demand* up to date.  A configuration that cannot be understood changes nothing."""

    def __init__(self, demand: Demand, log: Callable[..., Any] = lambda *_, **__: None) -> None:
        self.filter_error = ""
        self._demand, self._log = demand, log
        self._filter, self._user_filter = LabelFilter.parse(), ""
        self._by_cidr = self._by_labels = False
        self._relevant: dict[LabelSet, LabelSet] = {}
        self._nodes: dict[str, _Node | None] = {}

    def configure(self, data: Mapping[str, str]) -> bool:
        """Take over the cluster's configuration; whether every endpoint and node must be told anew."""
        changed = self._switch(data)
        user = data.get("labels", "")
        if user == self._user_filter:
            self.filter_error = ""
        else:
            try:
                self._filter = LabelFilter.parse(user.split())
            except InvalidLabelFilter as error:
                if self.filter_error != str(error):
                    self._log("label filter refused", error=str(error))
                self.filter_error = str(error)
            else:
                self.filter_error, self._user_filter, changed = "", user, True
                self._log("label filter changed", labels=user)
        if changed:
            self._relevant.clear()
            self._nodes = dict.fromkeys(self._nodes)
        return changed

    def endpoint(self, key: str, endpoint: Endpoint | None) -> None:
        """Take over an endpoint; None: it is gone."""
        uses: tuple[Use, ...] = ()
        if endpoint is not None:
            uses = ((self._relevant_of(endpoint.labels), endpoint.identity),)
        self._demand.use(f"endpoint {key}", uses)

    def selector(self, key: str, selector: SelectorSet | None) -> None:
        """Take over the prefixes that a selector tells apart; None: it is gone."""
        prefixes = () if selector is None else selector.prefixes
        self._demand.use(
            f"selector {key}", tuple((labels, 0) for labels in map(_of_prefix, prefixes) if labels)
        )

    def nodes(
        self, statuses: Iterable[NodeStatus], objects: Iterable[Resource], slices: Iterable[Resource]
    ) -> None:
        """Take over all nodes, and where the API server is; *objects* are theirs, by name.

        A node counts once it has said which addresses it has.
        """
        servers = api_server_addresses(slices)
        objects_by_name = {one.name: one for one in objects}
        found = {
            one.node: _Node(
                objects_by_name.get(one.node), one.addresses, not servers.isdisjoint(one.addresses)
            )
            for one in statuses
        }
        for name, node in found.items():
            if self._nodes.get(name) != node:
                self._demand.use(f"node {name}", self._forms(node))
        for name in self._nodes.keys() - found.keys():
            self._demand.use(f"node {name}")
        self._nodes = {**found}
        outside = servers.difference(*(one.addresses for one in found.values()))
        self._demand.use("api server", tuple((api_server_labels(one), 0) for one in sorted(outside)))

    def _switch(self, data: Mapping[str, str]) -> bool:
        try:
            config = EngineConfig.of(data)
        except InvalidConfig:
            return False  # the policy service says so
        before = self._by_cidr, self._by_labels
        self._by_cidr, self._by_labels = config.nodes_by_cidr, config.nodes_by_labels
        return before != (self._by_cidr, self._by_labels)

    def _relevant_of(self, labels: LabelSet) -> LabelSet:
        # Most news of an endpoint is not about its labels, and many endpoints have the same ones.
        if (known := self._relevant.get(labels)) is None:
            if len(self._relevant) >= KNOWN:
                self._relevant.clear()
            known = self._relevant[labels] = _numbered(self._filter.relevant(labels))
        return known

    def _forms(self, node: _Node) -> tuple[Use, ...]:
        forms = node_labels(
            node.node,
            node.addresses,
            self._filter,
            by_cidr=self._by_cidr,
            by_labels=self._by_labels,
            api_server=node.api_server,
        )
        return tuple((labels, 0) for labels in map(_numbered, forms) if labels)


def _numbered(labels: Iterable[str]) -> LabelSet:
    """*labels* as an identity stores them; () if they need no number."""
    return () if reserved_number(labels) else tuple(map(sys.intern, canonical(labels)))


def _of_prefix(prefix: str) -> LabelSet:
    """Labels of the identity of *prefix*; () if it has none of its own or cannot be read."""
    try:
        network = ip_network(prefix)
    except ValueError:
        return ()
    return prefix_labels(network) if network.prefixlen else ()
