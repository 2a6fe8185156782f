"""Node ports of Services."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from cirri.kubernetes.nodeports import NodePort, PortRefused, choose, taken, with_node_ports
from cirri.kubernetes.state import key_of
from cirri.model import Resource

RANGE = range(30000, 32768)
TCP, UDP = {"port": 53, "protocol": "TCP", "name": "t"}, {"port": 53, "protocol": "UDP", "name": "u"}
FIRST = choose(RANGE, set(), "d/a/TCP/53")
HEALTH = choose(RANGE, {FIRST}, "d/a/health")


def service(name: str = "a", **spec: Any) -> Resource:
    manifest = {"metadata": {}, "spec": {"type": "NodePort", "ports": [TCP], **spec}}
    return Resource(kind="Service", namespace="d", name=name, manifest=manifest)


class Case(NamedTuple):
    """*spec* of a Service, after it was *before*, has *ports* and a health-check port."""

    id: str
    spec: dict[str, Any]
    ports: list[int]
    health: int = 0
    before: dict[str, Any] | None = None
    used: Mapping[NodePort, str] = {}


LOCAL = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
CASES = [
    Case("one is chosen", {}, [FIRST]),
    Case("the one asked for", {"ports": [{**TCP, "nodePort": 30001}]}, [30001]),
    Case("two protocols, one number", {"ports": [TCP, UDP]}, [FIRST, FIRST]),
    Case("two protocols, told once", {"ports": [TCP, {**UDP, "nodePort": 30001}]}, [30001, 30001]),
    Case("the other protocol is taken", {"ports": [TCP, UDP]},
         [FIRST + 1, FIRST + 1], used={NodePort("UDP", FIRST): "d/b"}),
    Case("kept over an update", {}, [31000], before={"ports": [{**TCP, "nodePort": 31000}]}),
    Case("kept, although it is no longer in the range", {"ports": [{**TCP, "nodePort": 20000}]}, [20000],
         before={"ports": [{**TCP, "nodePort": 20000}]}),
    Case("none for a ClusterIP", {"type": "ClusterIP"}, [0], before={"ports": [{**TCP, "nodePort": 31000}]}),
    Case("none if it wants none", {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False}, [0]),
    Case("asked for all the same", {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False,
                                    "ports": [{**TCP, "nodePort": 30001}]}, [30001]),
    Case("a health check", LOCAL, [FIRST], HEALTH),
    Case("the health check asked for", {**LOCAL, "healthCheckNodePort": 30009}, [FIRST], 30009),
    Case("the health check is kept", LOCAL, [31000], 30009,
         before={"ports": [{**TCP, "nodePort": 31000}], "healthCheckNodePort": 30009}),
    Case("a port is not chosen where the health check is", {**LOCAL, "ports": [TCP]}, [FIRST + 1], FIRST,
         before={"ports": [], "healthCheckNodePort": FIRST}),
    Case("the health check goes with its reason", {"type": "LoadBalancer"}, [31000], 0,
         before={"ports": [{**TCP, "nodePort": 31000}], "healthCheckNodePort": 30009}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_ports(case: Case) -> None:
    old = service(**case.before) if case.before else None
    found = with_node_ports(service(**case.spec), old, case.used, RANGE).manifest["spec"]
    assert [port.get("nodePort", 0) for port in found["ports"]] == case.ports
    assert found.get("healthCheckNodePort", 0) == case.health


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("out of range", {"ports": [{**TCP, "nodePort": 80}]}, "ports[0].nodePort",
     "80 is not in node-port-range 30000,32767"),
    ("taken", {"ports": [{**TCP, "nodePort": 30500}]}, "ports[0].nodePort",
     "30500/TCP already belongs to Service d/b"),
    ("twice in one Service", {"ports": [{**TCP, "nodePort": 30001}, {**TCP, "port": 54, "nodePort": 30001}]},
     "ports[1].nodePort", "30001/TCP already belongs to Service d/a"),
    ("of a ClusterIP", {"type": "ClusterIP", "ports": [{**TCP, "nodePort": 30001}]}, "ports[0].nodePort",
     "a Service of type ClusterIP has none"),
    ("a health check without a reason", {"healthCheckNodePort": 30009}, "healthCheckNodePort",
     "needs type LoadBalancer and externalTrafficPolicy Local"),
    ("the health check is taken", {**LOCAL, "healthCheckNodePort": 30500}, "healthCheckNodePort",
     "30500/TCP already belongs to Service d/b"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "field", "why"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_refused(spec: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(PortRefused) as caught:
        with_node_ports(service(**spec), None, {NodePort("TCP", 30500): "d/b"}, RANGE)
    assert (caught.value.field, caught.value.why) == (field, why)


def test_ports_that_a_service_has_already_are_not_given_to_it_twice() -> None:
    ports = [{**TCP, "port": 54, "nodePort": 30001}, {**TCP, "nodePort": 30001}]
    old = service(**LOCAL, ports=[{**TCP, "nodePort": 30001}], healthCheckNodePort=30009)
    for wanted, field in (
        (ports, "ports[1].nodePort: 30001"),
        ([{**TCP, "nodePort": 30009}], "ports[0].nodePort: 30009"),
    ):
        with pytest.raises(PortRefused, match=re.escape(f"{field}/TCP already belongs to Service d/a")):
            with_node_ports(service(**LOCAL, ports=wanted), old, {}, RANGE)


def test_a_health_check_port_stays() -> None:
    old = service(**LOCAL, healthCheckNodePort=30009)
    with pytest.raises(PortRefused, match="cannot change from 30009"):
        with_node_ports(service(**LOCAL, healthCheckNodePort=30010), old, {}, RANGE)


def test_those_that_manifests_name_are_left_for_last() -> None:
    small = range(30000, 30064)
    used: set[int] = set()
    while len(used) < len(small):
        number = choose(small, used, "d/a")
        assert (number < 30016) == (len(used) >= 48)
        used.add(number)
    with pytest.raises(PortRefused, match="node-port-range 30000,30063 is exhausted"):
        choose(small, used, "d/a")


def test_taken() -> None:
    one = with_node_ports(service(**LOCAL), None, {}, RANGE)
    assert taken({key_of(one): one}) == {NodePort("TCP", FIRST): "d/a", NodePort("TCP", HEALTH): "d/a"}
