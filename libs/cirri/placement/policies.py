"""CiliumL2AnnouncementPolicy: which addresses of which Services, by which nodes, on which devices.

Source: names and meaning as in Cilium; without a selector all are meant, without interfaces every device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cirri.engine import regex
from cirri.engine.labelselector import requirements
from cirri.engine.rule import Findings
from cirri.engine.select import LabelSet, Requirement
from cirri.errors import CirriError
from cirri.loadbalancer import Announced
from cirri.model import Resource

KIND = "CiliumL2AnnouncementPolicy"
SOURCE = "k8s"
"""Of labels, as selectors see them."""
MAGIC = {"namespace": "io.kubernetes.service.namespace", "name": "io.kubernetes.service.name"}
"""Labels that selectors of Services may ask for, and that no Service has to have."""
BAD_SERVICES, BAD_NODES, BAD_INTERFACES = (
    f"io.cilium/bad-{what}" for what in ("service-selector", "node-selector", "interface-regex")
)
"""Types of conditions, as the field has them."""


class InvalidL2Policy(CirriError):
    """A policy that cannot be understood; nothing is announced because of it."""

    hint = "Correct the policy and apply it again"

    def __init__(self, name: str, path: tuple[str | int, ...], why: str) -> None:
        self.name, self.path, self.why = name, path, why
        super().__init__(f"{KIND} {name}: {'.'.join(map(str, path))}: {why}")


@dataclass(frozen=True, slots=True)
class L2Policy:
    """A policy, understood."""

    name: str
    services: tuple[Requirement, ...] = ()
    nodes: tuple[Requirement, ...] = ()
    interfaces: tuple[str, ...] = ()
    """Regular expressions, one of which describes a part of a device's name; (): any device."""
    kinds: frozenset[Announced] = frozenset()

    def selects(self, labels: LabelSet) -> bool:
        """Whether it speaks of a Service with *labels*."""
        return all(one.holds(labels) for one in self.services)

    def allows(self, labels: LabelSet) -> bool:
        """Whether a node with *labels* may announce."""
        return all(one.holds(labels) for one in self.nodes)

    def fits(self, device: str) -> bool:
        """Whether it may do so on *device*."""
        return not self.interfaces or any(regex.finds(each, device) for each in self.interfaces)


def policy_of(resource: Resource) -> L2Policy:
    """The policy that *resource* describes.  Raises: InvalidL2Policy."""
    spec: Mapping[str, Any] = resource.manifest.get("spec") or {}
    for _, path, why in faults(resource):
        raise InvalidL2Policy(resource.name, path, why)
    kinds: set[Announced] = set()
    if spec.get("externalIPs"):
        kinds.add("ExternalIPs")
    if spec.get("loadBalancerIPs"):
        kinds.add("LoadBalancer")
    return L2Policy(
        resource.name,
        tuple(requirements(spec.get("serviceSelector") or {}, "", Findings(), source=SOURCE)),
        tuple(requirements(spec.get("nodeSelector") or {}, "", Findings(), source=SOURCE)),
        tuple(spec.get("interfaces") or ()),
        frozenset(kinds),
    )


def faults(resource: Resource) -> Iterator[tuple[str, tuple[str | int, ...], str]]:
    """(type of condition, field, why) of all that cannot be understood."""
    spec: Mapping[str, Any] = resource.manifest.get("spec") or {}
    for field, condition in (("serviceSelector", BAD_SERVICES), ("nodeSelector", BAD_NODES)):
        out = Findings()
        requirements(spec.get(field) or {}, f"spec.{field}", out, source=SOURCE)
        for fault in out.faults:
            yield condition, tuple(fault.path.split(".")), fault.sentence
    for number, expression in enumerate(spec.get("interfaces") or ()):
        if why := regex.complaint(str(expression)):
            says = f"{expression!r} is no regular expression: {why}"
            yield BAD_INTERFACES, ("spec", "interfaces", number), says


def labels_of(resource: Resource | None) -> LabelSet:
    """The labels of a Service or a Node, as selectors see them."""
    metadata = (resource.manifest.get("metadata") or {}) if resource is not None else {}
    labels = dict(metadata.get("labels") or {})
    if resource is not None and resource.kind == "Service":
        labels |= {MAGIC["namespace"]: resource.namespace, MAGIC["name"]: resource.name}
    return LabelSet(f"{SOURCE}:{key}={value}" for key, value in labels.items())
