"""What keeps a Service from being served as it is written."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from cirri.loadbalancer.complaints import Around, Claim, Prefixes, claims, complaints
from cirri.model import Resource

NODES = ("n1", "n2")
AROUND = Around(nodes=NODES)
ROUTED = Around(
    services=Prefixes([ip_network("10.96.0.0/12")]),
    pools=Prefixes([ip_network("10.52.0.0/16")]),
    ranges=Prefixes([ip_network("10.52.0.0/24"), ip_network("10.52.1.0/24")]),
)
V4, V6 = "10.96.0.1", "fd00:10:96::1"


def svc(notes: dict[str, str] | None = None, ports: Any = ({"port": 80},), **spec: Any) -> Resource:
    spec = {"clusterIP": V4, "ports": [*ports] if isinstance(ports, tuple) else ports, **spec}
    manifest = {"metadata": {"annotations": notes or {}}, "spec": spec}
    return Resource(kind="Service", namespace="d", name="web", manifest=manifest)


def part(*addresses: str, node: str = "n1", port: int = 80, protocol: str = "TCP") -> Resource:
    manifest = {
        "addressType": "IPv6" if ":" in addresses[0] else "IPv4",
        "endpoints": [{"addresses": [each], "nodeName": node} for each in addresses],
        "ports": [{"port": port, "protocol": protocol}],
    }
    return Resource(kind="EndpointSlice", namespace="d", name="web-1", manifest=manifest)


BACKEND = [part("10.52.0.4")]
DUAL: dict[str, Any] = {"clusterIP": V4, "clusterIPs": [V4, V6]}
SCTP: Any = ({"port": 9, "protocol": "SCTP"},)

CASES: list[tuple[str, Resource, list[Resource], Around, list[str]]] = [
    ("nothing", svc(), BACKEND, AROUND, []),
    ("nobody serves yet", svc(), [], AROUND, []),
    ("headless", svc(clusterIP="None"), [part("10.52.0.4", node="x")], AROUND, []),
    (
        "a node port that the range has left behind",
        svc(type="NodePort", ports=({"port": 80, "nodePort": 30080},)),
        BACKEND,
        Around(node_ports=range(31000, 31101)),
        ["NodePortOutOfRange spec.ports[0].nodePort: 30080 is not in node-port-range 31000,31100; "
         "it is served all the same"],
    ),
    (
        "a health check too",
        svc(healthCheckNodePort=30081),
        BACKEND,
        Around(node_ports=range(31000, 31101)),
        ["NodePortOutOfRange spec.healthCheckNodePort: 30081 is not in node-port-range 31000,31100; "
         "it is served all the same"],
    ),
    (
        "IPv6 alone, where no pod has it",
        svc(clusterIP=V6),
        [],
        Around(pod_families={4}),
        [f"NoBackendOfFamily spec.clusterIPs[0]: {V6} refuses connections: no pod has an IPv6 address"],
    ),
    ("IPv6 from outside", svc(clusterIP=V6), [part("2001:db8::1")], Around(pod_families={4}), []),
    ("both families", svc(**DUAL), [part("10.52.0.4"), part("fd00::4")], AROUND, []),
    (
        "both families, endpoints of one",
        svc(**DUAL),
        BACKEND,
        AROUND,
        [f"NoBackendOfFamily spec.clusterIPs[1]: {V6} refuses connections: none of its endpoints has an "
         "IPv6 address"],
    ),
    (
        "an external address of the other family",
        svc(externalIPs=["203.0.113.7", "2001:db8::7"]),
        BACKEND,
        AROUND,
        ["NoBackendOfFamily spec.externalIPs[1]: 2001:db8::7 refuses connections: none of its endpoints "
         "has an IPv6 address"],
    ),
    (
        "a family that is no longer offered",
        svc(**DUAL),
        [part("10.52.0.4"), part("fd00::4")],
        Around(service_families={4}),
        [f"FamilyNotOffered spec.clusterIPs[1]: {V6}: service-cluster-ip-range has no IPv6 range"],
    ),
    (
        "endpoints of a node that is gone",
        svc(),
        [part(*(f"10.52.9.{i}" for i in range(4, 9)), node="n9")],
        AROUND,
        ["EndpointOnUnknownNode endpoints: 10.52.9.4, 10.52.9.5, 10.52.9.6 and 2 more on node n9, which does "
         "not exist: connections to it are lost"],
    ),
    (
        "an endpoint at an address of pods that no node has, and one of Services",
        svc(),
        [part("10.52.0.4", "10.52.7.4", "10.96.0.9", "192.0.2.7")],
        ROUTED,
        ["EndpointWithoutRoute endpoints: 10.96.0.9 belongs to Services, not to what could serve: "
         "connections are lost",
         "EndpointWithoutRoute endpoints: 10.52.7.4 is an address of pods that no node has: "
         "connections are lost"],
    ),
    (
        "which node has which is not known",
        svc(),
        [part("10.52.7.4")],
        Around(pools=Prefixes([ip_network("10.52.0.0/16")])),
        [],
    ),
    ("nodes are not known", svc(), [part("10.52.9.4", node="n9")], Around(), []),
    ("SCTP, port for port", svc(ports=SCTP), [part("10.52.0.4", port=9, protocol="SCTP")], AROUND, []),
    (
        "SCTP to another port, and node ports always are",
        svc(ports=({**SCTP[0], "nodePort": 30009},), type="NodePort"),
        [part("10.52.0.4", port=10, protocol="SCTP")],
        AROUND,
        [f"SctpPortDiffers spec.ports[0].{field}: {n} is not served: endpoints listen on 10, and SCTP's "
         "checksum, which covers ports, cannot be put right"
         for field, n in (("port", 9), ("nodePort", 30009))],
    ),
    (
        "direct answers through tunnels",
        svc(notes={"service.cilium.io/forwarding-mode": "dsr"}),
        BACKEND,
        Around(tunnel=True),
        ['ForwardingModeNotPossible metadata.annotations["service.cilium.io/forwarding-mode"]: "dsr" needs '
         "routing-mode: native; other nodes' backends get packets under this node's address (snat)"],
    ),
    ("direct answers", svc(notes={"service.cilium.io/forwarding-mode": "dsr"}), BACKEND, AROUND, []),
    (
        "an annotation from an API server that takes anything",
        svc(notes={"service.cilium.io/lb-algorithm": "fair"}),
        BACKEND,
        AROUND,
        ['InvalidAnnotation metadata.annotations["service.cilium.io/lb-algorithm"]: "fair" is not allowed; '
         "allowed: random, maglev; it is ignored"],
    ),
    (
        "a port that is no number",
        svc(ports=({"port": "http"},)),
        BACKEND,
        AROUND,
        ["NotUnderstood spec: cannot be understood "
         "(ValueError(\"invalid literal for int() with base 10: 'http'\")); nodes go on with the "
         "version that they understood last"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("service", "slices", "around", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_complaints(service: Resource, slices: list[Resource], around: Around, expected: list[str]) -> None:
    found = complaints(service, slices, around, lambda _: "")
    assert [f"{each.reason} {each}" for each in found] == expected


def test_claims_and_rivals() -> None:
    ports = ({"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"})
    service = svc(ports=ports, externalIPs=["203.0.113.7"], healthCheckNodePort=30081)
    assert claims(service) == {
        *(Claim(ip, 80, "TCP") for ip in (V4, "203.0.113.7")),
        *(Claim(ip, 53, "UDP") for ip in (V4, "203.0.113.7")),
        *(Claim("", port, "TCP") for port in (30080, 30081)),
    }
    contested = {Claim("", 30080, "TCP"): "d/a", Claim("203.0.113.7", 53, "UDP"): "d/b"}
    found = complaints(service, BACKEND, AROUND, lambda claim: contested.get(claim, ""))
    assert [str(each) for each in found] == [
        "node port 30080/TCP: not served there: Service d/a, which is older, has it",
        "203.0.113.7 port 53/UDP: not served there: Service d/b, which is older, has it",
    ]


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.52.0.0", True),
        ("10.52.0.255", True),
        ("10.52.1.0", False),
        ("10.51.255.255", False),
        ("10.60.1.2", True),
        ("fd00::ff", True),
        ("fd00::1:0", False),
        ("::10.52.0.1", False),
    ],
)
def test_prefixes(address: str, inside: bool) -> None:
    networks = ("10.52.0.0/24", "10.60.0.0/16", "fd00::/112")
    assert (ip_address(address) in Prefixes(map(ip_network, networks))) is inside
    assert ip_address(address) not in Prefixes()
    assert ip_address(address) in Prefixes([ip_network("0.0.0.0/0"), ip_network("::/0")])
