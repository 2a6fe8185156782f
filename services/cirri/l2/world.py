"""What this node knows: objects, other nodes, and what follows for each address.  Touches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cirri.loadbalancer import L2_CLASS, announceable, service_of
from cirri.model import Announcer, Resource
from cirri.placement import (
    Candidate,
    InvalidL2Policy,
    L2Policy,
    Place,
    Wanted,
    holders,
    policy_of,
    rank,
    refusal,
    wanted,
)
from cirri.placement.policies import labels_of


class Objects(NamedTuple):
    """Tables of resources."""

    services: Mapping[str, Resource]
    slices: Mapping[str, Resource]
    nodes: Mapping[str, Resource]
    policies: Mapping[str, Resource]


class World:
    """Objects and records, as they are now."""

    def __init__(self, objects: Objects, records: Mapping[str, Announcer]) -> None:
        self._objects, self._records = objects, records
        self.policies: list[L2Policy] = []
        self.wanted: dict[str, Wanted] = {}
        self.places: dict[str, Place] = {}
        self._slices: dict[tuple[str, str], list[Resource]] = {}
        self._nodes: list[Candidate] = []

    @property
    def announcers(self) -> dict[str, Announcer]:
        """Records, by node."""
        return {each.node: each for each in self._records.values()}

    @property
    def weights(self) -> dict[str, int]:
        """Shares, by node."""
        return {each.node: each.weight for each in self._nodes}

    def look(self) -> None:
        """Take note of what changed in the objects, or in what nodes say of their devices."""
        self.policies = []
        for each in self._objects.policies.values():
            try:
                self.policies.append(policy_of(each))
            except InvalidL2Policy:  # its conditions say so
                continue
        self.policies.sort(key=lambda one: one.name)
        self._slices = {}
        for part in self._objects.slices.values():
            self._slices.setdefault(service_of(part), []).append(part)
        devices = {each.node: each.devices for each in self._records.values()}
        self._nodes = [
            Candidate.of(node, devices[node.name])
            for node in self._objects.nodes.values()
            if node.name in devices
        ]
        self.wanted = wanted(self.policies, self._objects.services.values(), self._slices, self._nodes)

    def place(self, alive: frozenset[str]) -> dict[str, Place]:
        """Where each address is while *alive* live."""
        self.places = holders(self.wanted, self.announcers, alive & self.announcers.keys(), self.weights)
        return self.places

    def explain(self, address: str, alive: frozenset[str]) -> dict[str, Any]:
        """Why *address* is where it is."""
        one, place = self.wanted.get(address), self.places.get(address)
        if one is None:
            return {"address": address, "holder": "", "reason": self._why_nowhere(address), "nodes": []}
        ranked = rank(address, (node.node for node in self._nodes), self.weights)
        rows = [self._row(address, node, alive, one) for node in sorted(self._nodes, key=_position(ranked))]
        reason = place.reason if place else "no living node may hold it"
        return {
            "address": address,
            "services": one.services,
            "policies": one.policies,
            "holder": place.node if place else "",
            "reason": reason,
            "stand_in": bool(place and place.stand_in),
            "nodes": rows,
        }

    def _row(self, address: str, node: Candidate, alive: frozenset[str], one: Wanted) -> dict[str, Any]:
        record, why = self.announcers[node.node], ""
        if node.node not in one.devices:
            why = next(filter(None, self._refusals(address, node, one)), "serves fewer of those who share it")
        elif node.node not in alive:
            why = "no sign of life"
        elif record.drained:
            why = "drained"
        return {
            "node": node.node,
            "weight": node.weight,
            "devices": one.devices.get(node.node, node.devices),
            "claim": record.claims.get(address, 0),
            "able": not why,
            "why": why,
        }

    def _refusals(self, address: str, node: Candidate, one: Wanted) -> Sequence[str]:
        services = {f"{each.namespace}/{each.name}": each for each in self._objects.services.values()}
        found = []
        for name in one.services:
            service = services[name]
            ours = [policy for policy in self.policies if policy.selects(labels_of(service))]
            behind = self._slices.get((service.namespace, service.name), ())
            found.append(refusal(service, ours, behind, address, node))
        return found

    def _why_nowhere(self, address: str) -> str:
        for service in self._objects.services.values():
            kind = announceable(service, L2_CLASS).get(address)
            if kind is None:
                continue
            name = f"{service.namespace}/{service.name}"
            selecting = [one.name for one in self.policies if one.selects(labels_of(service))]
            if not selecting:
                return f"no policy selects Service {name}"
            if kind == "ClusterIP":
                return f"it is the cluster address of Service {name}: those are not announced"
            field = "externalIPs" if kind == "ExternalIPs" else "loadBalancerIPs"
            return (
                f"of the policies that select Service {name} none has {field}: true ({', '.join(selecting)})"
            )
        return "no Service that may be announced here has this address"


def _position(ranked: Sequence[str]) -> Any:
    places = {node: number for number, node in enumerate(ranked)}
    return lambda node: places[node.node]
