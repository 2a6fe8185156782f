"""Which addresses are to be announced, and which nodes may hold each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cirri.engine.select import LabelSet
from cirri.loadbalancer import L2_CLASS, Here, announceable, nodes_with_backends
from cirri.loadbalancer.frontends import answers_outside
from cirri.model import Resource
from cirri.placement.policies import L2Policy, labels_of

PREFERRED = "l2.cirri.io/preferred-nodes"
"""Annotation of a Service: nodes, separated by commas, that hold its addresses while they can."""
WEIGHT = "l2.cirri.io/weight"
"""Annotation of a Node: its share of addresses, 0 to 255; 0: only what no other node can hold."""
NOT_SELECTED, NO_DEVICE, NO_BACKEND, NOT_OUTSIDE = (
    "no policy selects the node",
    "no policy fits one of its devices",
    "no ready backend on it (traffic policy Local)",
    "an annotation of the Service names other nodes",
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node, as far as its objects tell."""

    node: str
    labels: LabelSet
    here: Here
    devices: tuple[str, ...]
    weight: int = 1

    @classmethod
    def of(cls, resource: Resource, devices: Iterable[str]) -> Candidate:
        """From the Node object; *devices* says the node itself."""
        notes = (resource.manifest.get("metadata") or {}).get("annotations") or {}
        text = str(notes.get(WEIGHT, "1"))
        weight = int(text) if text.isascii() and text.isdigit() and int(text) <= 255 else 1
        return cls(
            resource.name, labels_of(resource), Here.of(resource.name, resource, ()), tuple(devices), weight
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """An address that some node is to hold."""

    address: str
    services: tuple[str, ...] = ()
    """``NAMESPACE/NAME``; several share it by LB-IPAM's sharing key."""
    policies: tuple[str, ...] = ()
    devices: Mapping[str, tuple[str, ...]] = None  # type: ignore[assignment]
    """Node that may hold it -> on these devices."""
    preferred: tuple[str, ...] = ()


def wanted(
    policies: Sequence[L2Policy],
    services: Iterable[Resource],
    slices: Mapping[tuple[str, str], Sequence[Resource]],
    nodes: Sequence[Candidate],
) -> dict[str, Wanted]:
    """By address: all that policies want announced, also what no node may hold now."""
    found: dict[str, list[Wanted]] = {}
    for service in services:
        given = announceable(service, L2_CLASS)
        labels = labels_of(service) if given else None
        for address, kind in given.items():
            ours = [one for one in policies if kind in one.kinds and labels and one.selects(labels)]
            if not ours:
                continue
            behind = slices.get((service.namespace, service.name), ())
            backed = nodes_with_backends(service, behind, address, kind)
            devices = {node.node: fits for node in nodes if (fits := _devices(service, ours, backed, node))}
            name = f"{service.namespace}/{service.name}"
            one = Wanted(address, (name,), tuple(each.name for each in ours), devices, _preferred(service))
            found.setdefault(address, []).append(one)
    return {address: _together(each) for address, each in found.items()}


def refusal(
    service: Resource, policies: Sequence[L2Policy], slices: Sequence[Resource], address: str, node: Candidate
) -> str:
    """Why *node* may not hold *address* of *service*, which *policies* select; "": it may."""
    backed = nodes_with_backends(service, slices, address, announceable(service, L2_CLASS)[address])
    if not any(one.allows(node.labels) for one in policies):
        return NOT_SELECTED
    if not answers_outside(service, node.here):
        return NOT_OUTSIDE
    if backed is not None and node.node not in backed:
        return NO_BACKEND
    return "" if _devices(service, policies, backed, node) else NO_DEVICE


def _devices(
    service: Resource, policies: Sequence[L2Policy], backed: frozenset[str] | None, node: Candidate
) -> tuple[str, ...]:
    if (backed is not None and node.node not in backed) or not answers_outside(service, node.here):
        return ()
    allowing = [one for one in policies if one.allows(node.labels)]
    return tuple(device for device in node.devices if any(one.fits(device) for one in allowing))


def _preferred(service: Resource) -> tuple[str, ...]:
    notes = (service.manifest.get("metadata") or {}).get("annotations") or {}
    return tuple(filter(None, (each.strip() for each in str(notes.get(PREFERRED, "")).split(","))))


def _together(several: Sequence[Wanted]) -> Wanted:
    """Services that share an address: nodes that serve most of them may hold it."""
    if len(several) == 1:
        return several[0]
    serves = {node: sum(node in one.devices for one in several) for one in several for node in one.devices}
    most = max(serves.values(), default=0)
    devices = {
        node: tuple(dict.fromkeys(device for one in several for device in one.devices.get(node, ())))
        for node, count in sorted(serves.items())
        if count == most
    }
    return Wanted(
        several[0].address,
        tuple(sorted(name for one in several for name in one.services)),
        tuple(dict.fromkeys(name for one in several for name in one.policies)),
        devices,
        next((one.preferred for one in several if one.preferred), ()),
    )
