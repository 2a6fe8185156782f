"""Services as peers: whose pods and addresses they stand for, also as those change."""

from ipaddress import ip_network

import pytest

from cirri.engine.context import Context
from cirri.labels import prefix_labels
from cirri.testing.policies import Cluster, pod, policies

PEERS = {
    "shop/api": pod("shop", {"app": "api"}),
    "ops/prom": pod("ops", {"app": "prom"}),
    "ops/web": pod("ops", {"app": "web"}),
    "shop/prom": pod("shop", {"app": "prom"}),
    "80": prefix_labels(ip_network("203.0.113.80/32")),
    "81": prefix_labels(ip_network("203.0.113.81/32")),
    "6": prefix_labels(ip_network("2001:db8::6/128")),
}
OBJECTS = """
kind: Service
metadata: {name: metrics, namespace: ops, labels: {team: sre}}
spec: {selector: {app: prom}}
---
kind: Service
metadata: {name: ext, namespace: shop, labels: {team: sre}}
spec: {ports: [{port: 80}]}
---
kind: Service
metadata: {name: ext, namespace: ops}
spec: {selector: {app: web}}
---
kind: EndpointSlice
metadata: {name: ext-4, namespace: shop, labels: {kubernetes.io/service-name: ext}}
addressType: IPv4
endpoints:
- {addresses: [203.0.113.80]}
- {addresses: [203.0.113.81], conditions: {ready: false}}
---
kind: EndpointSlice
metadata: {name: ext-6, namespace: shop, labels: {kubernetes.io/service-name: ext}}
addressType: IPv6
endpoints: [{addresses: ["2001:db8::6"], conditions: {ready: false, serving: true}}]
---
kind: EndpointSlice
metadata: {name: metrics-1, namespace: ops, labels: {kubernetes.io/service-name: metrics}}
addressType: IPv4
endpoints: [{addresses: [203.0.113.81]}]
"""


def policy(peers: str, section: str = "egress") -> str:
    return (
        f"spec: {{endpointSelector: {{matchLabels: {{app: api}}}}, {section}: [{{{peers}}}], "
        f"enableDefaultDeny: {{egress: {'false' if section == 'egressDeny' else 'true'}}}}}\n---\n"
    )


def reached(cluster: Cluster) -> set[str]:
    return {name for name in PEERS if cluster.ask(f"shop/api -> {name} TCP/80") == "allow"}


REACHED: list[tuple[str, set[str]]] = [
    ("toServices: [{k8sService: {serviceName: metrics, namespace: ops}}]", {"ops/prom"}),
    ("toServices: [{k8sService: {serviceName: metrics}}]", {"ops/prom"}),
    ("toServices: [{k8sService: {serviceName: metrics, namespace: shop}}]", set()),
    ("toServices: [{k8sService: {serviceName: ext, namespace: shop}}]", {"80", "6"}),
    ("toServices: [{k8sService: {serviceName: ext}}]", {"80", "6", "ops/web"}),
    ("toServices: [{k8sServiceSelector: {selector: {matchLabels: {team: sre}}}}]", {"80", "6", "ops/prom"}),
    (
        "toServices: [{k8sServiceSelector: {selector: {matchLabels: {k8s:team: sre}}, namespace: ops}}]",
        {"ops/prom"},
    ),
    ("toServices: [{k8sServiceSelector: {selector: {}}}]", {"80", "6", "ops/prom", "ops/web"}),
    ("toServices: [{k8sService: {serviceName: absent}}]", set()),
    ("toServices: [{k8sService: {serviceName: absent}}], toPorts: [{ports: [{port: '80'}]}]", set()),
    (
        "toServices: [{k8sService: {serviceName: metrics}}], toPorts: [{ports: [{port: '81'}]}]",
        set(),
    ),
    ("toServices: [], toPorts: [{ports: [{port: '80'}]}]", set()),
]


@pytest.mark.parametrize(("peers", "expected"), REACHED, ids=[peers for peers, _ in REACHED])
def test_whom_services_stand_for(peers: str, expected: set[str]) -> None:
    assert reached(Cluster(PEERS, policies(policy(peers) + OBJECTS))) == expected


@pytest.mark.parametrize(("peers", "expected"), REACHED, ids=[peers for peers, _ in REACHED])
def test_whom_a_deny_keeps_away(peers: str, expected: set[str]) -> None:
    assert reached(Cluster(PEERS, policies(policy(peers, "egressDeny") + OBJECTS))) == PEERS.keys() - expected


def test_services_and_backends_come_change_and_go() -> None:
    cluster = Cluster(PEERS, policies(policy("toServices: [{k8sService: {serviceName: ext}}]")))
    metrics, service, other, slice4, slice6, _ = policies(OBJECTS)
    steps = [
        ([slice4], set()),
        ([service], {"80"}),
        ([slice6, metrics], {"80", "6"}),
        (policies("kind: EndpointSlice\nmetadata: {name: ext-4, namespace: shop}\naddressType: IPv4"), {"6"}),
        ([other], {"6", "ops/web"}),
        (policies("kind: Service\nmetadata: {name: ext, namespace: shop}\nspec: {selector: {app: prom}}"),
         {"shop/prom", "ops/web"}),
        ([service], {"6", "ops/web"}),
    ]  # fmt: skip
    for objects, expected in steps:
        for one in objects:
            cluster.compiler.update_resource(one)
        cluster.compiler.flush()
        assert reached(cluster) == expected
    for key, expected in (
        ("EndpointSlice.shop.ext-6._", {"ops/web"}),
        ("Service.ops.ext._", set()),
        ("Service.shop.ext._", set()),
    ):
        cluster.compiler.delete_resource(key)
        cluster.compiler.flush()
        assert reached(cluster) == expected


def test_what_changes_whose_meaning() -> None:
    """Slices of a Service with a selector change with every pod: they concern nobody."""
    context = Context()
    metrics, service, other, slice4, slice6, slice_metrics = policies(OBJECTS)
    assert context.update(slice4) == set()
    assert context.update(service) == {"service", "service ext"}
    assert context.update(service) == set()
    assert context.update(slice4) == set()
    assert context.update(slice6) == {"service", "service ext"}
    assert context.update(other) == {"service", "service ext"}
    assert context.update(metrics) == {"service", "service metrics"}
    assert context.update(slice_metrics) == set()
    assert context.delete("EndpointSlice.ops.metrics-1._") == set()
    assert context.delete("EndpointSlice.shop.ext-4._") == {"service", "service ext"}
    assert context.delete("Service.shop.ext._") == {"service", "service ext"}
    assert context.delete("Service.shop.ext._") == set()


def test_what_means_nobody_makes_no_rule() -> None:
    cluster = Cluster(PEERS, policies(policy("toServices: [{k8sService: {serviceName: absent}}]")))
    assert cluster.compiler.policies[cluster.numbers["shop/api"]].egress.rules == ()
    cluster.compiler.update_resource(policies("kind: Service\nmetadata: {name: absent}\nspec: {}")[0])
    cluster.compiler.flush()
    assert cluster.compiler.policies[cluster.numbers["shop/api"]].egress.rules == ()
