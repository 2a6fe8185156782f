"""Reading Kubernetes objects: the few questions that every controller of the lab asks.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cirri.model import Resource

Manifest = dict[str, Any]


class Ref(NamedTuple):
    """Which object, for deletion and for look-ups."""

    kind: str
    namespace: str
    name: str


def ref(resource: Resource) -> Ref:
    """Which object *resource* is."""
    return Ref(resource.kind, resource.namespace, resource.name)


def metadata(resource: Resource) -> Manifest:
    """``metadata``; never None."""
    found: Manifest = resource.manifest.get("metadata") or {}
    return found


def spec(resource: Resource) -> Manifest:
    """``spec``; never None."""
    found: Manifest = resource.manifest.get("spec") or {}
    return found


def status(resource: Resource) -> Manifest:
    """``status``; never None."""
    found: Manifest = resource.manifest.get("status") or {}
    return found


def labels(resource: Resource) -> Mapping[str, str]:
    """``metadata.labels``; never None."""
    return metadata(resource).get("labels") or {}


def uid(resource: Resource) -> str:
    """``metadata.uid``: another object of the same name has another one."""
    return str(metadata(resource).get("uid", ""))


def owner_uid(resource: Resource) -> str:
    """The uid of the controller that made *resource*; "" if a person did."""
    for owner in metadata(resource).get("ownerReferences") or []:
        if owner.get("controller"):
            return str(owner.get("uid", ""))
    return ""


def condition(resource: Resource, kind: str) -> bool:
    """Whether condition *kind* of the object's status is True."""
    found = status(resource).get("conditions") or []
    return any(c.get("type") == kind and c.get("status") == "True" for c in found)


def pod_addresses(pod: Resource) -> list[str]:
    """The addresses the pod's status gives, IPv4 first as the plugin returned them."""
    return [entry["ip"] for entry in status(pod).get("podIPs") or [] if entry.get("ip")]


def selects(selector: Mapping[str, str], candidate: Resource) -> bool:
    """Whether equality-based *selector* selects *candidate*; an empty one selects nothing."""
    found = labels(candidate)
    return bool(selector) and all(found.get(k) == v for k, v in selector.items())


def container_ports(pod: Resource) -> list[Manifest]:
    """Every ``containerPort`` entry of the pod."""
    return [port for c in spec(pod).get("containers") or [] for port in c.get("ports") or []]
