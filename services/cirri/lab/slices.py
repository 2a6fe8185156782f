"""Services and ready Pods -> EndpointSlices.  Pure."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cirri.lab.objects import (
    Manifest,
    Ref,
    condition,
    container_ports,
    labels,
    pod_addresses,
    ref,
    selects,
    spec,
    uid,
)
from cirri.model import Resource

MANAGER = "endpointslice-controller.k8s.io"
SERVICE_LABEL = "kubernetes.io/service-name"
MANAGED_LABEL = "endpointslice.kubernetes.io/managed-by"
MAX_ENDPOINTS = 100
"""Endpoints in a slice, as in Kubernetes: a change then rewrites little."""

Ports = tuple[tuple[str, str, int], ...]
"""(name, protocol, number) of each port, with named targets resolved for one Pod."""


@dataclass(frozen=True, slots=True)
class SlicePlan:
    """Slices to write and slices to delete."""

    apply: tuple[Manifest, ...] = ()
    delete: tuple[Ref, ...] = ()


def plan(services: Iterable[Resource], pods: Iterable[Resource], slices: Iterable[Resource]) -> SlicePlan:
    """Compare the slices that Services call for with the ones this controller wrote."""
    running = sorted((p for p in pods if pod_addresses(p)), key=lambda p: (p.namespace, p.name))
    by_namespace: dict[str, list[Resource]] = defaultdict(list)
    for pod in running:
        by_namespace[pod.namespace].append(pod)
    wanted: dict[Ref, Manifest] = {}
    for service in services:
        for manifest in _slices(service, by_namespace[service.namespace]):
            wanted[Ref("EndpointSlice", service.namespace, manifest["metadata"]["name"])] = manifest
    current = {ref(s): s for s in slices if labels(s).get(MANAGED_LABEL) == MANAGER}
    return SlicePlan(
        apply=tuple(m for r, m in wanted.items() if r not in current or not _same(current[r], m)),
        delete=tuple(r for r in current if r not in wanted),
    )


def _slices(service: Resource, pods: list[Resource]) -> list[Manifest]:
    selector: Mapping[str, str] = spec(service).get("selector") or {}
    if not selector:
        return []  # whoever wrote such a Service writes its slices
    families = spec(service).get("ipFamilies") or ["IPv4", "IPv6"]
    groups: dict[tuple[str, Ports], list[tuple[Resource, str]]] = defaultdict(list)
    for pod in pods:
        if not selects(selector, pod):
            continue
        ports = resolved_ports(service, pod)
        for address in pod_addresses(pod):
            family = "IPv6" if ":" in address else "IPv4"
            if family in families:
                groups[family, ports].append((pod, address))
    result = []
    for (family, ports), members in sorted(groups.items(), key=lambda g: g[0]):
        for start in range(0, len(members), MAX_ENDPOINTS):
            part = members[start : start + MAX_ENDPOINTS]
            result.append(_slice(service, family, ports, part, start // MAX_ENDPOINTS))
    return result


def resolved_ports(service: Resource, pod: Resource) -> Ports:
    """The Service's ports as *pod* serves them; a name that the Pod lacks is left out."""
    named = {
        (p["name"], p.get("protocol", "TCP")): int(p["containerPort"])
        for p in container_ports(pod)
        if p.get("name")
    }
    result = []
    for port in spec(service).get("ports") or []:
        protocol = port.get("protocol", "TCP")
        target = port.get("targetPort", port["port"])
        number = named.get((target, protocol)) if isinstance(target, str) else int(target)
        if number is not None:
            result.append((port.get("name", ""), protocol, number))
    return tuple(result)


def _slice(
    service: Resource, family: str, ports: Ports, members: list[tuple[Resource, str]], part: int
) -> Manifest:
    text = f"{uid(service)} {family} {ports} {part}"
    suffix = hashlib.sha256(text.encode()).hexdigest()[:5]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service.name}-{suffix}",
            "namespace": service.namespace,
            "labels": {**labels(service), SERVICE_LABEL: service.name, MANAGED_LABEL: MANAGER},
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "name": service.name,
                    "uid": uid(service),
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "addressType": family,
        "ports": [{"name": name, "protocol": protocol, "port": number} for name, protocol, number in ports],
        "endpoints": [_endpoint(service, pod, address) for pod, address in members],
    }


def _endpoint(service: Resource, pod: Resource, address: str) -> Manifest:
    ready = condition(pod, "Ready")
    return {
        "addresses": [address],
        "conditions": {
            "ready": ready or bool(spec(service).get("publishNotReadyAddresses")),
            "serving": ready,
            "terminating": False,
        },
        "nodeName": pod.node,
        "targetRef": {"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": uid(pod)},
    }


def _same(current: Resource, wanted: Manifest) -> bool:
    have = current.manifest
    if any(have.get(part) != wanted[part] for part in ("addressType", "ports", "endpoints")):
        return False
    return bool(labels(current) == wanted["metadata"]["labels"])
