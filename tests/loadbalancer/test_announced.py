"""Which addresses of a Service are announced, by whom, and from where."""

from typing import Any

import pytest

from cirri.loadbalancer import BGP_CLASS, L2_CLASS, Here, announceable, announced, nodes_with_backends
from cirri.model import Resource

HERE = Here("n1", labels={"role": "edge"})
READY, NOT_READY = {"ready": True}, {"ready": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}
GIVEN = {"loadBalancer": {"ingress": [{"ip": "192.168.3.200"}, {"ip": "fd00::200"}]}}
ALL = {
    "192.168.3.200": "LoadBalancer",
    "fd00::200": "LoadBalancer",
    "10.0.0.9": "ExternalIPs",
    "10.96.0.5": "ClusterIP",
}
LB = {address: kind for address, kind in ALL.items() if kind == "LoadBalancer"}

BOTH, N2 = frozenset({"n1", "n2"}), frozenset({"n2"})
INSIDE = {"10.0.0.9": "ExternalIPs", "10.96.0.5": "ClusterIP"}


def svc(
    notes: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    status: dict[str, Any] | None = None,
    **spec: Any,
) -> Resource:
    own = {"type": "LoadBalancer", "clusterIP": "10.96.0.5", "externalIPs": ["10.0.0.9"], **spec}
    manifest = {"metadata": {"annotations": notes or {}, "labels": labels or {}}, "spec": own}
    manifest["status"] = GIVEN if status is None else status
    return Resource(kind="Service", namespace="d", name="web", manifest=manifest)


def part(*endpoints: tuple[str, str, dict[str, bool]], family: str = "IPv4") -> Resource:
    listed = [{"addresses": [ip], "nodeName": node, "conditions": state} for ip, node, state in endpoints]
    return Resource(kind="EndpointSlice", name="s", manifest={"addressType": family, "endpoints": listed})


@pytest.mark.parametrize(
    ("service", "by", "expected"),
    [
        (svc(), L2_CLASS, ALL),
        (svc(), BGP_CLASS, ALL),
        (svc(loadBalancerClass=L2_CLASS), L2_CLASS, ALL),
        (svc(loadBalancerClass=L2_CLASS), BGP_CLASS, INSIDE),
        (svc(loadBalancerClass=BGP_CLASS), L2_CLASS, {}),
        (svc(loadBalancerClass="io.cilium/node"), L2_CLASS, {}),
        (svc(loadBalancerClass="example.com/box"), BGP_CLASS, INSIDE),
        (svc(type="ClusterIP"), L2_CLASS, INSIDE),
        (svc(status={}), L2_CLASS, INSIDE),
        (svc(type="ExternalName"), L2_CLASS, {}),
        (svc(clusterIP="None"), L2_CLASS, {}),
        (svc(labels={"service.kubernetes.io/service-proxy-name": "other"}), L2_CLASS, {}),
        (svc(notes={"service.cilium.io/type": "LoadBalancer"}), L2_CLASS, LB),
        (svc(notes={"service.cilium.io/type": "NodePort"}), L2_CLASS, {}),
        (
            svc(
                status={
                    "loadBalancer": {"ingress": [{"ip": "1.2.3.4", "ipMode": "Proxy"}, {"hostname": "a.b"}]}
                }
            ),
            L2_CLASS,
            INSIDE,
        ),
        (svc(externalIPs=["192.168.3.200"]), L2_CLASS, {**LB, "10.96.0.5": "ClusterIP"}),
    ],
)
def test_addresses(service: Resource, by: str, expected: dict[str, str]) -> None:
    assert announceable(service, by) == expected


@pytest.mark.parametrize(
    ("slices", "address", "expected"),
    [
        ([], "192.168.3.200", frozenset()),
        (
            [part(("10.52.0.4", "n1", READY), ("10.52.1.4", "n2", READY))],
            "192.168.3.200",
            BOTH,
        ),
        ([part(("10.52.0.4", "n1", NOT_READY), ("10.52.1.4", "n2", {}))], "192.168.3.200", N2),
        (
            [part(("10.52.0.4", "n1", LEAVING), ("10.52.1.4", "n2", READY))],
            "192.168.3.200",
            N2,
        ),
        ([part(("10.52.0.4", "n1", LEAVING))], "192.168.3.200", frozenset({"n1"})),
        ([part(("10.52.0.4", "", READY))], "192.168.3.200", frozenset()),
        ([part(("10.52.0.4", "n1", READY))], "fd00::200", frozenset()),
        (
            [part(("fd00::4", "n2", READY), family="IPv6"), part(("10.0.0.4", "n1", READY))],
            "fd00::200",
            N2,
        ),
    ],
)
def test_local_needs_a_backend_of_the_family(
    slices: list[Resource], address: str, expected: frozenset[str]
) -> None:
    local = svc(externalTrafficPolicy="Local")
    assert nodes_with_backends(local, slices, address, "LoadBalancer") == expected
    assert nodes_with_backends(svc(), slices, address, "LoadBalancer") is None
    assert nodes_with_backends(local, slices, address, "ClusterIP") is None
    inside = svc(internalTrafficPolicy="Local")
    assert nodes_with_backends(inside, slices, address, "ClusterIP") == expected
    assert nodes_with_backends(inside, slices, address, "ExternalIPs") is None


@pytest.mark.parametrize(
    ("service", "slices", "expected"),
    [
        (svc(), [], ALL),
        (svc(externalTrafficPolicy="Local"), [], {"10.96.0.5": "ClusterIP"}),
        (
            svc(externalTrafficPolicy="Local"),
            [part(("10.52.0.4", "n1", READY))],
            {k: v for k, v in ALL.items() if k != "fd00::200"},
        ),
        (
            svc(externalTrafficPolicy="Local"),
            [part(("10.52.0.4", "n2", READY))],
            {"10.96.0.5": "ClusterIP"},
        ),
        (svc(notes={"service.cilium.io/node": "n2"}), [], {}),
        (svc(notes={"service.cilium.io/node": "n1"}), [], ALL),
        (svc(notes={"service.cilium.io/node-selector": "role=core"}), [], {}),
        (svc(notes={"service.cilium.io/node-selector": "role=edge"}), [], ALL),
    ],
)
def test_what_a_node_announces(service: Resource, slices: list[Resource], expected: dict[str, str]) -> None:
    assert announced(service, slices, HERE, L2_CLASS) == expected
