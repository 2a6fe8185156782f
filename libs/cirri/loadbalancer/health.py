"""What a node answers load balancers outside that ask whether it serves a Service.  Pure.

Source: Kubernetes, pkg/proxy/healthcheck (service_health.go, proxy_health.go): paths, fields and headers are
those of kube-proxy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from cirri.loadbalancer.config import LoadBalancerConfig
from cirri.loadbalancer.endpoints import local_endpoints
from cirri.loadbalancer.frontends import Here, answers_outside, is_served
from cirri.model import Resource

WEIGHT_HEADER = "X-Load-Balancing-Endpoint-Weight"
LEAVING = "ToBeDeletedByClusterAutoscaler"
"""Taint of a node that takes no more connections from outside."""


class HealthCheck(NamedTuple):
    """What is answered on *port* about a Service."""

    port: int
    namespace: str
    name: str
    local: int
    """Endpoints on this node that take connections."""


class Said(NamedTuple):
    """An answer: HTTP status, headers, JSON."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: dict[str, Any]


def health_check(
    service: Resource | None, slices: Sequence[Resource], here: Here, config: LoadBalancerConfig
) -> HealthCheck | None:
    """The check of *service*, if it has one: a node without local endpoints would answer nobody."""
    spec: Mapping[str, Any] = (service.manifest.get("spec") or {}) if service is not None else {}
    port = int(spec.get("healthCheckNodePort") or 0)
    if service is None or not port or not config.health_check_node_ports or not is_served(service):
        return None
    if spec.get("type") != "LoadBalancer" or spec.get("externalTrafficPolicy") != "Local":
        return None
    local = local_endpoints(slices, here.node) if answers_outside(service, here) else 0
    return HealthCheck(port, service.namespace, service.name, local)


def service_answer(check: HealthCheck, *, healthy: bool) -> Said:
    """``/healthz`` on a Service's health-check node port; *healthy*: the node serves what it knows."""
    body = {
        "service": {"namespace": check.namespace, "name": check.name},
        "localEndpoints": check.local,
        "serviceProxyHealthy": healthy,
    }
    return Said(200 if check.local and healthy else 503, ((WEIGHT_HEADER, str(check.local)),), body)


def proxy_answer(*, healthy: bool, updated: datetime, now: datetime, eligible: bool | None = None) -> Said:
    """``/healthz`` (with *eligible*) and ``/livez`` of the node, as kube-proxy's."""
    body: dict[str, Any] = {"lastUpdated": updated.isoformat(), "currentTime": now.isoformat()}
    if eligible is not None:
        body["nodeEligible"] = eligible
    return Said(200 if healthy and eligible is not False else 503, (), body)


def eligible(node: Resource | None) -> bool:
    """Whether balancers should send connections to the node whose object is *node* (KEP-3836)."""
    if node is None:
        return True
    taints: Iterable[Mapping[str, Any]] = (node.manifest.get("spec") or {}).get("taints") or []
    going = (node.manifest.get("metadata") or {}).get("deletionTimestamp")
    return not going and all(taint.get("key") != LEAVING for taint in taints)
