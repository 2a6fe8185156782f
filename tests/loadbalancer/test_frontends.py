"""What a Service means on a node: a table of Services, nodes and the frontends that follow."""

from ipaddress import ip_address
from typing import Any

import pytest

from cirri.loadbalancer import Frontend, Here, LoadBalancerConfig, Scope, frontends, host_ports
from cirri.loadbalancer.endpoints import plain_address
from cirri.model import Resource

IN, OUT = Scope.INTERNAL, Scope.EXTERNAL
HERE = Here("n1", "east", {"role": "edge"}, ("192.168.3.11", "fd00::11"), ("192.168.3.12",))
CONFIG = LoadBalancerConfig()
HTTP = [{"name": "http", "port": 80}]
NODE_PORT = [{"name": "http", "port": 80, "nodePort": 30080}]


def svc(annotations: dict[str, str] | None = None, labels: dict[str, str] | None = None, ingress: Any = (),
        **spec: Any) -> Resource:  # fmt: skip
    metadata = {"annotations": annotations or {}, "labels": labels or {}}
    status = {"loadBalancer": {"ingress": list(ingress)}}
    spec = {"clusterIP": "10.96.0.1", "ports": HTTP, **spec}
    manifest = {"metadata": metadata, "spec": spec, "status": status}
    return Resource(kind="Service", namespace="d", name="web", manifest=manifest)


def at(address: str, node: str = "n1", **more: Any) -> dict[str, Any]:
    return {"addresses": [address], "nodeName": node, **more}


def part(*endpoints: dict[str, Any], family: str = "IPv4") -> Resource:
    ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
    manifest = {"addressType": family, "ports": ports, "endpoints": list(endpoints)}
    return Resource(kind="EndpointSlice", namespace="d", name="web-1", manifest=manifest)


BOTH = [part(at("10.52.0.4"), at("10.52.1.4", "n2"))]


def short(service: Resource, slices: list[Resource] = BOTH, config: LoadBalancerConfig = CONFIG,
          here: Here = HERE) -> dict[tuple[str, int, int], tuple[str, ...]]:  # fmt: skip
    """(address, port, scope) -> names of the backends."""
    found = frontends(service, slices, here, config)
    return {(f.address, f.port, int(f.scope)): tuple(b.name for b in s.backends) for f, s in found.items()}


NEAR, FAR = "10.52.0.4:8080", "10.52.1.4:8080"
EVERYONE = (NEAR, FAR)

CASES = [
    ("ClusterIP is for the inside alone", svc(), {("10.96.0.1", 80, 0): EVERYONE}),
    ("headless", svc(clusterIP="None"), {}),
    ("ExternalName", svc(type="ExternalName"), {}),
    ("somebody else's", svc(labels={"service.kubernetes.io/service-proxy-name": "x"}), {}),
    ("inside, local only", svc(internalTrafficPolicy="Local"), {("10.96.0.1", 80, 0): (NEAR,)}),
    (
        "node port: own addresses for both, the others' from inside; no IPv6 for an IPv4 Service",
        svc(type="NodePort", ports=NODE_PORT),
        {
            ("10.96.0.1", 80, 0): EVERYONE,
            ("192.168.3.11", 30080, 1): EVERYONE,
            ("192.168.3.11", 30080, 0): EVERYONE,
            ("192.168.3.12", 30080, 0): EVERYONE,
        },
    ),
    (
        "external policy Local holds for what comes from outside",
        svc(type="LoadBalancer", externalTrafficPolicy="Local", ingress=[{"ip": "192.168.3.200"}]),
        {
            ("10.96.0.1", 80, 0): EVERYONE,
            ("192.168.3.200", 80, 1): (NEAR,),
            ("192.168.3.200", 80, 0): EVERYONE,
        },
    ),
    (
        "an address that a proxy of somebody else's answers",
        svc(type="LoadBalancer", ingress=[{"ip": "192.168.3.200", "ipMode": "Proxy"}, {"hostname": "x"}]),
        {("10.96.0.1", 80, 0): EVERYONE},
    ),
    (
        "external IPs",
        svc(externalIPs=["203.0.113.7"]),
        {
            ("10.96.0.1", 80, 0): EVERYONE,
            ("203.0.113.7", 80, 1): EVERYONE,
            ("203.0.113.7", 80, 0): EVERYONE,
        },
    ),
    (
        "only some kinds of frontends",
        svc({"service.cilium.io/type": "NodePort"}, type="NodePort", ports=NODE_PORT),
        {
            ("192.168.3.11", 30080, 1): EVERYONE,
            ("192.168.3.11", 30080, 0): EVERYONE,
            ("192.168.3.12", 30080, 0): EVERYONE,
        },
    ),
    (
        "another node answers",
        svc({"service.cilium.io/node": "n2"}, externalIPs=["203.0.113.7"]),
        {("10.96.0.1", 80, 0): EVERYONE},
    ),
    (
        "nodes with other labels answer",
        svc({"service.cilium.io/node-selector": "role=core"}, externalIPs=["203.0.113.7"]),
        {("10.96.0.1", 80, 0): EVERYONE},
    ),
    ("no backend", svc(ports=[{"name": "other", "port": 80}]), {("10.96.0.1", 80, 0): ()}),
]


@pytest.mark.parametrize(("service", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_frontends(service: Resource, expected: dict[tuple[str, int, int], tuple[str, ...]]) -> None:
    assert short(service) == expected


def test_families_meet_their_like() -> None:
    service = svc(clusterIPs=["10.96.0.1", "fd00:10:96::1"], type="NodePort", ports=NODE_PORT)
    found = short(service, [*BOTH, part(at("fd00:10:52::4"), family="IPv6")])
    assert found["fd00:10:96::1", 80, 0] == ("[fd00:10:52::4]:8080",)
    assert found["fd00::11", 30080, 1] == ("[fd00:10:52::4]:8080",)
    assert found["192.168.3.11", 30080, 1] == EVERYONE


NOT_READY: dict[str, Any] = {"conditions": {"ready": False}}
TERMINATING: dict[str, Any] = {"conditions": {"ready": False, "serving": True, "terminating": True}}
GONE: dict[str, Any] = {"conditions": {"ready": False, "serving": False, "terminating": True}}
EAST, WEST = ({"forZones": [{"name": zone}]} for zone in ("east", "west"))
ENDPOINTS: list[tuple[str, list[dict[str, Any]], list[tuple[str, str]]]] = [
    ("unknown readiness is ready", [at("10.0.0.1", conditions={})], [("10.0.0.1", "active")]),
    ("not ready", [at("10.0.0.1", **NOT_READY)], []),
    ("leaving, still serving", [at("10.0.0.1"), at("10.0.0.2", **TERMINATING)],
     [("10.0.0.1", "active"), ("10.0.0.2", "terminating")]),
    ("leaving, no longer serving", [at("10.0.0.1"), at("10.0.0.2", **GONE)], [("10.0.0.1", "active")]),
    ("all leaving", [at("10.0.0.2", **TERMINATING)], [("10.0.0.2", "terminating")]),
    ("hints for this zone", [at("10.0.0.1", hints=EAST), at("10.0.0.2", hints=WEST)],
     [("10.0.0.1", "active")]),
    ("hints that leave nobody", [at("10.0.0.1", hints=WEST)],
     [("10.0.0.1", "active")]),
    ("one without hints", [at("10.0.0.1", hints=WEST), at("10.0.0.2")],
     [("10.0.0.1", "active"), ("10.0.0.2", "active")]),
    ("hints for this node", [at("10.0.0.1", hints={"forNodes": [{"name": "n1"}]}),
                             at("10.0.0.2", hints={"forNodes": [{"name": "n2"}]})], [("10.0.0.1", "active")]),
]  # fmt: skip


@pytest.mark.parametrize(("endpoints", "expected"), [c[1:] for c in ENDPOINTS], ids=[c[0] for c in ENDPOINTS])
def test_endpoints(endpoints: list[dict[str, Any]], expected: list[tuple[str, str]]) -> None:
    (serving,) = frontends(svc(), [part(*endpoints)], HERE, CONFIG).values()
    assert [(backend.address, backend.state) for backend in serving.backends] == expected


def test_a_local_service_may_be_served_elsewhere() -> None:
    """That a node has no backend is no refusal while others have one."""
    service = svc(type="NodePort", ports=NODE_PORT, externalTrafficPolicy="Local")
    far, near, nobody = [part(at("10.52.1.4", "n2"))], BOTH, [part()]
    door = Frontend("192.168.3.11", 30080, "TCP", OUT)
    for slices, elsewhere in ((far, True), (near, False), (nobody, False)):
        assert frontends(service, slices, HERE, CONFIG)[door].elsewhere is elsewhere


def test_how_it_is_served() -> None:
    annotations = {
        "service.cilium.io/lb-algorithm": "maglev",
        "service.cilium.io/src-ranges-policy": "deny",
        "service.cirri.io/weights": "10.52.0.4=3, n2=0",
    }
    service = svc(
        annotations,
        type="LoadBalancer",
        ingress=[{"ip": "192.168.3.200"}],
        loadBalancerSourceRanges=["10.0.0.0/8", "2001:db8::/32"],
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}},
        ports=NODE_PORT,
    )
    found = frontends(service, BOTH, HERE, LoadBalancerConfig(mode="hybrid"))
    outside = found[Frontend("192.168.3.200", 80, "TCP", OUT)]
    assert (outside.algorithm, outside.dsr, outside.affinity_s) == ("maglev", True, 60)
    assert (list(map(str, outside.ranges)), outside.ranges_deny, outside.guarded) == (
        ["10.0.0.0/8"],
        True,
        True,
    )
    assert [backend.weight for backend in outside.backends] == [3, 0]
    node_port = found[Frontend("192.168.3.11", 30080, "TCP", OUT)]
    assert not node_port.guarded
    inside = found[Frontend("10.96.0.1", 80, "TCP", IN)]
    assert (inside.dsr, inside.guarded) == (False, False)


def test_a_frontend_that_not_every_node_has_is_not_answered_directly() -> None:
    annotations = {"service.cilium.io/forwarding-mode": "dsr"}
    for more, wanted in (({}, True), ({"service.cilium.io/node": "n1"}, False)):
        service = svc(annotations | more, type="NodePort", ports=NODE_PORT)
        found = frontends(service, BOTH, HERE, CONFIG)
        assert found[Frontend("192.168.3.11", 30080, "TCP", OUT)].dsr is wanted


HOST_PORTS: list[tuple[str, dict[str, Any], set[tuple[str, int]]]] = [
    ("every address", {"hostPort": 80, "containerPort": 8080}, {("192.168.3.11", 80), ("fd00::11", 80)}),
    ("one", {"hostPort": 80, "containerPort": 8080, "hostIP": "127.0.0.1"}, {("127.0.0.1", 80)}),
    ("a family", {"hostPort": 80, "containerPort": 8080, "hostIP": "::"}, {("fd00::11", 80)}),
    ("none", {"containerPort": 8080}, set()),
]


@pytest.mark.parametrize(("port", "expected"), [c[1:] for c in HOST_PORTS], ids=[c[0] for c in HOST_PORTS])
def test_host_ports(port: dict[str, Any], expected: set[tuple[str, int]]) -> None:
    status = {"podIPs": [{"ip": "10.52.0.4"}, {"ip": "fd00:10:52::4"}]}
    manifest = {"spec": {"containers": [{"ports": [port]}]}, "status": status}
    pod = Resource(kind="Pod", namespace="d", name="web", node="n1", manifest=manifest)
    found = host_ports([pod], HERE)
    assert {(one.address, one.port) for one in found} == expected
    for frontend, serving in found.items():
        (backend,) = serving.backends
        assert (":" in frontend.address) == (":" in backend.address)
        assert backend.port == 8080


@pytest.mark.parametrize(
    "text", ["10.0.0.1", "FD00:0::1", "::ffff:10.0.0.1", "::1.2.3.4", "::", "1:0:2:0:0:3:0:0", "fe80::1%eth0"]
)
def test_addresses_read_as_everywhere_else(text: str) -> None:
    assert plain_address(text) == str(ip_address(text))


@pytest.mark.parametrize("text", ["", "10.0.0", "010.0.0.1", "10.0.0.1/32", "fd00::g", "a"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        plain_address(text)
