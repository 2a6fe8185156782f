"""What balancers outside are told, as kube-proxy tells them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from cirri.loadbalancer import (
    HealthCheck,
    Here,
    InvalidConfig,
    LoadBalancerConfig,
    eligible,
    health_check,
    proxy_answer,
    service_answer,
)
from cirri.model import Resource

HERE = Here("n1", labels={"role": "edge"})
CONFIG = LoadBalancerConfig()
LOCAL = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32100}


def svc(notes: dict[str, str] | None = None, labels: dict[str, str] | None = None, **spec: Any) -> Resource:
    manifest = {"metadata": {"annotations": notes or {}, "labels": labels or {}}, "spec": {**LOCAL, **spec}}
    return Resource(kind="Service", namespace="d", name="web", manifest=manifest)


def part(*endpoints: tuple[str, str, dict[str, bool]], family: str = "IPv4") -> Resource:
    listed = [{"addresses": [ip], "nodeName": node, "conditions": state} for ip, node, state in endpoints]
    return Resource(
        kind="EndpointSlice", name="s", manifest={"addressType": family, "endpoints": listed, "ports": []}
    )


READY: dict[str, bool] = {"ready": True}
LEAVING = {"ready": False, "serving": True, "terminating": True}

CASES = [
    ("no endpoint", svc(), [], 0),
    ("elsewhere", svc(), [part(("10.52.1.4", "n2", READY))], 0),
    ("here and elsewhere", svc(), [part(("10.52.0.4", "n1", READY), ("10.52.1.4", "n2", READY))], 1),
    ("two slices", svc(), [part(("10.52.0.4", "n1", READY)), part(("10.52.0.5", "n1", READY))], 2),
    ("one address in two slices", svc(), [part(("10.52.0.4", "n1", READY))] * 2, 1),
    (
        "a pod with both families is one",
        svc(),
        [part(("10.52.0.4", "n1", READY)), part(("fd00::4", "n1", READY), family="IPv6")],
        1,
    ),
    ("not ready", svc(), [part(("10.52.0.4", "n1", {"ready": False}))], 0),
    ("what is not said is ready", svc(), [part(("10.52.0.4", "n1", {}))], 1),
    ("who leaves is no reason to come", svc(), [part(("10.52.0.4", "n1", LEAVING))], 0),
    (
        "a node that does not answer outside",
        svc(notes={"service.cilium.io/node": "n2"}),
        [part(("10.52.0.4", "n1", READY))],
        0,
    ),
    ("policy Cluster", svc(externalTrafficPolicy="Cluster"), [], None),
    ("not a LoadBalancer", svc(type="NodePort"), [], None),
    ("no port yet", svc(healthCheckNodePort=0), [], None),
    ("somebody else's", svc(labels={"service.kubernetes.io/service-proxy-name": "x"}), [], None),
    ("gone", None, [], None),
]


@pytest.mark.parametrize(
    ("service", "slices", "local"), [c[1:] for c in CASES], ids=[str(c[0]) for c in CASES]
)
def test_who_is_checked_and_what_counts(
    service: Resource | None, slices: list[Resource], local: int | None
) -> None:
    found = health_check(service, slices, HERE, CONFIG)
    assert found == (None if local is None else HealthCheck(32100, "d", "web", local))
    off = LoadBalancerConfig.of({"enable-health-check-nodeport": "false"})
    assert health_check(service, slices, HERE, off) is None


@pytest.mark.parametrize(
    ("local", "healthy", "status"), [(2, True, 200), (0, True, 503), (2, False, 503), (0, False, 503)]
)
def test_service_answer(local: int, healthy: bool, status: int) -> None:
    said = service_answer(HealthCheck(32100, "d", "web", local), healthy=healthy)
    assert said.status == status
    assert said.headers == (("X-Load-Balancing-Endpoint-Weight", str(local)),)
    assert said.body == {
        "service": {"namespace": "d", "name": "web"},
        "localEndpoints": local,
        "serviceProxyHealthy": healthy,
    }


@pytest.mark.parametrize(
    ("healthy", "may", "status"),
    [(True, True, 200), (True, False, 503), (False, True, 503), (True, None, 200), (False, None, 503)],
)
def test_proxy_answer(healthy: bool, may: bool | None, status: int) -> None:
    at, now = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    said = proxy_answer(healthy=healthy, updated=at, now=now, eligible=may)
    assert said.status == status
    assert said.body.get("nodeEligible") == may
    assert said.body["lastUpdated"].startswith("2026-01-01T")


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (None, True),
        ({}, True),
        ({"spec": {"taints": [{"key": "a"}]}}, True),
        ({"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler"}]}}, False),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, False),
    ],
)
def test_eligible(manifest: dict[str, Any] | None, expected: bool) -> None:
    node = None if manifest is None else Resource(kind="Node", name="n", manifest=manifest)
    assert eligible(node) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0:10256", ("0.0.0.0", 10256)),
        ("[::]:1", ("::", 1)),
        ("", None),
        ("10.0.0.1:80", ("10.0.0.1", 80)),
    ],
)
def test_bind_address(text: str, expected: tuple[str, int] | None) -> None:
    assert LoadBalancerConfig.of({"kube-proxy-replacement-healthz-bind-address": text}).healthz == expected


@pytest.mark.parametrize("text", ["10256", "host:1", "0.0.0.0", "0.0.0.0:0", "0.0.0.0:99999", ":10256"])
def test_no_bind_address(text: str) -> None:
    with pytest.raises(InvalidConfig, match="an address and a port"):
        LoadBalancerConfig.of({"kube-proxy-replacement-healthz-bind-address": text})
