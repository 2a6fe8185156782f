"""From policy objects to rule sets.

An object with a fault means nothing and is refused whole.  One that uses a part of the language
that this version does not enforce is refused where it is applied; if it arrives nevertheless,
it is read so that it lets through nothing that the full language would not: an allow that is not
understood allows nobody, a deny that is not understood denies everybody.
"""

from __future__ import annotations

from cirri.engine.annotations import annotated
from cirri.engine.cilium import CLUSTERWIDE, Reader
from cirri.engine.config import PERMISSIVE, EngineConfig
from cirri.engine.kubernetes import kubernetes_rules
from cirri.engine.rule import Finding, Findings, InvalidPolicy, ObjectRule
from cirri.model import Resource

KINDS = ("NetworkPolicy", "CiliumNetworkPolicy", CLUSTERWIDE)
"""Kinds of resource that carry policy."""


def rules(resource: Resource, config: EngineConfig = PERMISSIVE) -> list[ObjectRule]:
    """Rule sets of a policy object.  Raises InvalidPolicy with every fault."""
    return read(resource, config)[0]


def read(resource: Resource, config: EngineConfig = PERMISSIVE) -> tuple[list[ObjectRule], list[Finding]]:
    """Rule sets of a policy object, and what of it is not enforced.  Raises InvalidPolicy."""
    out = Findings()
    found = _read(resource, config, out)
    if out.faults:
        raise InvalidPolicy(resource.kind, resource.namespace, resource.name, out.faults)
    return found, out.gaps


def faults(resource: Resource, config: EngineConfig = PERMISSIVE) -> list[Finding]:
    """Everything that is wrong with a policy object: field path and sentence."""
    out = Findings()
    _read(resource, config, out)
    return out.faults


def findings(resource: Resource, config: EngineConfig = PERMISSIVE) -> list[Finding]:
    """Both :func:`faults` and what is :func:`unsupported`."""
    out = Findings()
    _read(resource, config, out)
    return [*out.faults, *out.gaps]


def unsupported(resource: Resource) -> list[Finding]:
    """Fields of a policy object that this version does not enforce: field path and sentence."""
    out = Findings()
    _read(resource, PERMISSIVE, out)
    return out.gaps


def _read(resource: Resource, config: EngineConfig, out: Findings) -> list[ObjectRule]:
    if resource.kind == "NetworkPolicy":
        found = kubernetes_rules(resource, config, out)
    else:
        found = Reader(resource, config, out).rules()
    return annotated(found, resource, out)
