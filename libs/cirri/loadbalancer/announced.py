"""Which addresses of a Service nodes tell the network about, and which nodes may.  Pure.

What ``l2`` and ``bgp`` have in common.  An address of no node (of a pool, or an external one) is reached
because some node says that it is there; whether that node has to have a backend the traffic policy says.

Source: Kubernetes API, Service v1 (externalTrafficPolicy, loadBalancerClass); KEP-1669.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from cirri.loadbalancer.endpoints import ready_nodes, version_of
from cirri.loadbalancer.frontends import (
    ANNOTATIONS,
    Here,
    answers_outside,
    cluster_ips,
    ingress,
    is_served,
    kinds_of,
)
from cirri.model import Resource

Announced = Literal["LoadBalancer", "ExternalIPs", "ClusterIP"]
"""Kinds of addresses, by the names that annotation ``service.cilium.io/type`` has for them."""
L2_CLASS, BGP_CLASS = "io.cilium/l2-announcer", "io.cilium/bgp-control-plane"
"""Of ``spec.loadBalancerClass``: whose Services are announced by one of the two alone."""


def announceable(service: Resource, by: str) -> dict[str, Announced]:
    """Every address of *service* that *by* (a class) may announce, and what it is.

    A Service without a class is anybody's.  One of another class: ``l2`` leaves it alone, ``bgp`` its
    LoadBalancer addresses, as in Cilium.
    """
    spec: Mapping[str, Any] = service.manifest.get("spec") or {}
    ours = spec.get("loadBalancerClass") in (None, "", by)
    if not is_served(service) or (by == L2_CLASS and not ours):
        return {}
    notes = (service.manifest.get("metadata") or {}).get("annotations") or {}
    shown = kinds_of(notes.get(f"{ANNOTATIONS}type", ""))
    # An address that is several things is announced as the last of them.
    found: dict[str, Announced] = {}
    for address in cluster_ips(spec) if "ClusterIP" in shown else ():
        found[address] = "ClusterIP"
    for address in spec.get("externalIPs") or () if "ExternalIPs" in shown else ():
        found[str(address)] = "ExternalIPs"
    given = ingress(spec, service.manifest.get("status") or {})
    for address in given if "LoadBalancer" in shown and ours else ():
        found[address] = "LoadBalancer"
    return found


def nodes_with_backends(
    service: Resource, slices: Iterable[Resource], address: str, kind: Announced
) -> frozenset[str] | None:
    """The nodes that have a backend for who asks at *address*; None: any node will do.

    With traffic policy Local, the external one or for a cluster address the internal one, a node without a
    ready endpoint of the address' family would drop what comes.  Endpoints that terminate count where no node
    has another.
    """
    spec: Mapping[str, Any] = service.manifest.get("spec") or {}
    policy = spec.get("internalTrafficPolicy" if kind == "ClusterIP" else "externalTrafficPolicy")
    return ready_nodes(slices, version_of(address)) if policy == "Local" else None


def announced(service: Resource, slices: Sequence[Resource], here: Here, by: str) -> dict[str, Announced]:
    """The addresses of *service* that *here* may announce by *by*, and what each is.

    Without those for which it has no backend while it has to, and none if annotations name other nodes.
    """
    found = announceable(service, by)
    if not found or not answers_outside(service, here):
        return {}
    nodes = {address: nodes_with_backends(service, slices, address, kind) for address, kind in found.items()}
    return {
        address: kind
        for address, kind in found.items()
        if (allowed := nodes[address]) is None or here.node in allowed
    }
