"""What a node's speaker is to be, and what objects say of themselves, as tables."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from cirri.bgp.conditions import changed
from cirri.bgp.objects import Facts, World
from cirri.bgp.speaker import Attributes
from cirri.bgp.wanted import decide
from cirri.model import NodeStatus, Resource
from cirri.model.bgp import Drain

NOW = "2026-01-01T00:00:00Z"
ROUTER, OTHER = "10.0.0.254", "10.0.0.253"


def made(kind: str, name: str, spec: dict[str, Any], namespace: str = "", **meta: Any) -> Resource:
    manifest = {"metadata": {"name": name, "creationTimestamp": NOW, **meta}, "spec": spec}
    return Resource(kind=kind, namespace=namespace, name=name, manifest=manifest)


def config(name: str = "c", *, asn: int = 65001, created: str = NOW, **spec: Any) -> Resource:
    peers = spec.pop(
        "peers", [{"name": "tor", "peerASN": 65010, "peerAddress": ROUTER, "peerConfigRef": {"name": "p"}}]
    )
    instances = [{"name": "i", "localASN": asn, "peers": peers}]
    return made(
        "CiliumBGPClusterConfig", name, {"bgpInstances": instances, **spec}, creationTimestamp=created
    )


def peer_config(**spec: Any) -> Resource:
    families = [
        {"afi": afi, "safi": "unicast", "advertisements": {"matchLabels": {"a": "b"}}}
        for afi in ("ipv4", "ipv6")
    ]
    return made("CiliumBGPPeerConfig", "p", {"families": families, **spec})


def advert(*entries: dict[str, Any], name: str = "all", label: str = "b") -> Resource:
    return made("CiliumBGPAdvertisement", name, {"advertisements": list(entries)}, labels={"a": label})


def service(policy: str = "Cluster") -> Resource:
    spec = {
        "type": "LoadBalancer",
        "externalTrafficPolicy": policy,
        "clusterIPs": ["10.96.0.1"],
        "externalIPs": ["192.0.2.7"],
        "ports": [{"port": 80}],
    }
    found = made("Service", "s", spec, "default", labels={"app": "s"})
    found.manifest["status"] = {"loadBalancer": {"ingress": [{"ip": "198.51.100.5"}]}}
    return found


def world(
    *objects: Resource, node: str = "n1", backend: str = "n1", drain: Drain = "", facts: Facts | None = None
) -> World:
    by_kind: dict[str, list[Resource]] = {}
    for each in objects:
        by_kind.setdefault(each.kind, []).append(each)
    part = made("EndpointSlice", "s-1", {}, "default", labels={"kubernetes.io/service-name": "s"})
    part.manifest.update(
        addressType="IPv4", ports=[{"port": 80}], endpoints=[{"addresses": ["10.1.0.1"], "nodeName": backend}]
    )
    return World(
        node,
        {name: made("Node", name, {}, labels={"rack": name}) for name in ("n1", "n2")},
        tuple(by_kind.get("CiliumBGPClusterConfig", ())),
        {each.name: each for each in by_kind.get("CiliumBGPPeerConfig", ())},
        tuple(by_kind.get("CiliumBGPAdvertisement", ())),
        {each.name: each for each in by_kind.get("CiliumBGPNodeConfigOverride", ())},
        tuple(by_kind.get("CiliumBGPPeeringPolicy", ())),
        {each.name: each for each in by_kind.get("Secret", ())},
        tuple(by_kind.get("Service", ())),
        {("default", "s"): [part]},
        ("10.52.0.0/24", "fd00:52::/120"),
        (
            NodeStatus(node="n1", addresses=("10.0.0.1", "fd00::1")),
            NodeStatus(node="n2", addresses=("10.0.0.2",)),
        ),
        facts or Facts(),
        drain,
    )


PODS = {"advertisementType": "PodCIDR"}


def services(*kinds: str, **more: Any) -> dict[str, Any]:
    selector = more.pop("selector", {})
    return {
        "advertisementType": "Service",
        "selector": selector,
        "service": {"addresses": list(kinds), **more},
    }


class Case(NamedTuple):
    """*objects* have node1 announce *routes*."""

    id: str
    objects: tuple[Resource, ...]
    routes: set[str]
    backend: str = "n1"
    drain: Drain = ""


LB, CLUSTER_IP, EXTERNAL = "198.51.100.5/32", "10.96.0.1/32", "192.0.2.7/32"
BOTH = ("LoadBalancerIP", "ClusterIP", "ExternalIP")
CASES = [
    Case("pod ranges of both families", (advert(PODS),), {"10.52.0.0/24", "fd00:52::/120"}),
    Case("no advertisement is selected", (advert(PODS, label="other"),), set()),
    Case("every address of a Service", (advert(services(*BOTH)), service()), {LB, CLUSTER_IP, EXTERNAL}),
    Case("one kind", (advert(services("ExternalIP")), service()), {EXTERNAL}),
    Case(
        "a selector takes none",
        (advert(services(*BOTH, selector={"matchLabels": {"app": "x"}})), service()),
        set(),
    ),
    Case("no selector means none", (advert(services(*BOTH, selector=None)), service()), set()),
    Case(
        "aggregated",
        (advert(services("LoadBalancerIP", aggregationLengthIPv4=24)), service()),
        {"198.51.100.0/24"},
    ),
    Case(
        "Local is not aggregated",
        (advert(services("LoadBalancerIP", aggregationLengthIPv4=24)), service("Local")),
        {LB},
    ),
    Case(
        "Local, without a backend",
        (advert(services("LoadBalancerIP")), service("Local")),
        set(),
        backend="n2",
    ),
    Case("Cluster, without a backend", (advert(services("LoadBalancerIP")), service()), {LB}, backend="n2"),
    Case("drained", (advert(PODS),), set(), drain="withdraw"),
    Case("drained gently", (advert(PODS),), {"10.52.0.0/24", "fd00:52::/120"}, drain="graceful-shutdown"),
    Case("pod IP pools are unknown", (advert({"advertisementType": "CiliumPodIPPool"}),), set()),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_routes(case: Case) -> None:
    found = decide(
        world(config(), peer_config(), *case.objects, backend=case.backend, drain=case.drain)
    ).speaker
    assert found is not None
    assert set(found.routes) == case.routes
    assert [peer.address for peer in found.peers] == [ROUTER], "a node without routes keeps its sessions"


def told(found: World) -> Attributes:
    speaker = decide(found).speaker
    assert speaker is not None
    ((_, said),) = speaker.routes["10.52.0.0/24"]
    return said


def test_attributes_of_several_advertisements_are_joined() -> None:
    first = {**PODS, "attributes": {"communities": {"standard": ["65001:1", "65536"]}, "localPreference": 50}}
    second = {
        **PODS,
        "attributes": {
            "communities": {"wellKnown": ["no-export"], "large": ["1:2:03"]},
            "localPreference": 70,
        },
    }
    objects = (peer_config(), advert(first), advert(second, name="more"))
    expected = ("1:0", "65001:1", "65535:65281"), ("1:2:3",)
    assert told(world(config(asn=65010), *objects)) == Attributes(*expected, 70)
    assert told(world(config(asn=65001), *objects)) == Attributes(*expected, None), (
        "between ASes it means nothing"
    )


def test_a_node_drained_gently_is_the_last_choice() -> None:
    found = told(world(config(asn=65010), peer_config(), advert(PODS), drain="graceful-shutdown"))
    assert found == Attributes(("65535:0",), (), 0)


SECRET = made("Secret", "s", {})
SECRET.manifest["data"] = {"password": "Z2VoZWlt"}
EMPTY = made("Secret", "s", {})
PROBLEMS = [
    ("no PeerConfig", (config(),), "no CiliumBGPPeerConfig p"),
    ("no Secret", (config(), peer_config(authSecretRef="s")), "no Secret s with key password"),
    ("an empty Secret", (config(), peer_config(authSecretRef="s"), EMPTY), "no Secret s with key password"),
    (
        "no gateway",
        (
            config(
                peers=[
                    {
                        "name": "g",
                        "peerASN": 1,
                        "autoDiscovery": {"defaultGateway": {"addressFamily": "ipv6"}},
                    }
                ]
            ),
        ),
        "no default gateway of IPv6",
    ),
]


@pytest.mark.parametrize(("objects", "says"), [p[1:] for p in PROBLEMS], ids=[p[0] for p in PROBLEMS])
def test_a_peer_that_is_not_known_whole_is_left_as_it_is(objects: tuple[Resource, ...], says: str) -> None:
    found = decide(world(*objects))
    assert found.speaker is not None
    assert (found.speaker.peers, any(says in each for each in found.problems)) == ((), True)
    assert "gateway" in says or found.speaker.held == {ROUTER}


def test_a_missing_secret_leaves_the_routes_of_its_peer() -> None:
    with_, without = (
        decide(world(config(), peer_config(**spec), advert(PODS))).speaker
        for spec in ({}, {"authSecretRef": "s"})
    )
    assert with_ is not None
    assert without is not None
    assert (without.routes, without.held, without.peers) == (with_.routes, frozenset((ROUTER,)), ())


def test_a_password_and_what_else_a_peer_config_says() -> None:
    timers = {"connectRetryTimeSeconds": 5, "holdTimeSeconds": 9, "keepAliveTimeSeconds": 3}
    spec = {"timers": timers, "ebgpMultihop": 4, "gracefulRestart": {"enabled": True}, "authSecretRef": "s"}
    source = Facts(interfaces={"eth1": ("10.9.0.1", "fd09::1")})
    transport = {"peerPort": 1790, "sourceInterface": "eth1"}
    found = decide(world(config(), peer_config(**spec, transport=transport), SECRET, facts=source)).speaker
    assert found is not None
    (peer,) = found.peers
    assert (peer.password, peer.port, peer.local_address, peer.ttl) == ("geheim", 1790, "10.9.0.1", 4)
    assert (peer.connect_retry_s, peer.hold_s, peer.keepalive_s, peer.restart_s) == (5, 9, 3, 120)
    assert "geheim" not in repr(peer)
    assert "geheim" not in peer.mark


def test_an_override_and_where_it_listens() -> None:
    change = {"name": "i", "routerID": "9.9.9.9", "localPort": 1790, "localASN": 65005}
    override = made("CiliumBGPNodeConfigOverride", "n1", {"bgpInstances": [change]})
    plain, other = decide(world(config())).speaker, decide(world(config(), override)).speaker
    assert plain is not None
    assert other is not None
    assert (plain.router_id, plain.asn, plain.listen_port, plain.listen_addresses) == (
        "10.0.0.1",
        65001,
        -1,
        (),
    )
    assert (other.router_id, other.asn, other.listen_port) == ("9.9.9.9", 65005, 1790)
    assert other.listen_addresses == ("10.0.0.1", "fd00::1")


def test_the_older_policy() -> None:
    neighbor = {
        "peerAddress": f"{OTHER}/32",
        "peerASN": 65001,
        "families": [{"afi": "ipv4", "safi": "unicast"}],
        "advertisedPathAttributes": [{"selectorType": "PodCIDR", "localPreference": 99}],
    }
    router = {"localASN": 65001, "exportPodCIDR": True, "serviceSelector": {}, "neighbors": [neighbor]}
    found = decide(
        world(made("CiliumBGPPeeringPolicy", "old", {"virtualRouters": [router]}), service())
    ).speaker
    assert found is not None
    assert dict(found.routes) == {
        "10.52.0.0/24": ((OTHER, Attributes((), (), 99)),),
        LB: ((OTHER, Attributes()),),
    }


def conditions(*objects: Resource) -> dict[str, dict[str, str]]:
    found = changed(world(*objects), NOW)
    return {
        each["metadata"]["name"]: {
            c["type"].partition("/")[2]: c["message"]
            for c in each["status"]["conditions"]
            if c["status"] == "True"
        }
        for each in found
    }


RACK: dict[str, Any] = {"nodeSelector": {"matchLabels": {"rack": "n9"}}}
BAD = [
    ("nothing", (config(), peer_config()), {"c": {}, "p": {}}),
    (
        "no node",
        (config(**RACK), peer_config()),
        {"c": {"NoMatchingNode": "nodeSelector takes no node"}, "p": {}},
    ),
    ("no PeerConfig", (config(),), {"c": {"MissingPeerConfigs": "no CiliumBGPPeerConfig p"}}),
    (
        "no Secret",
        (config(), peer_config(authSecretRef="s")),
        {
            "c": {},
            "p": {"MissingAuthSecret": "no Secret s with key password: peers without a session get none"},
        },
    ),
    (
        "two for one node",
        (config("a", created="2026-02-01T00:00:00Z"), config("b"), peer_config()),
        {
            "a": {"ConflictingClusterConfig": "CiliumBGPClusterConfig b selects n1, n2 too: b holds there"},
            "b": {"ConflictingClusterConfig": "CiliumBGPClusterConfig a selects n1, n2 too: b holds there"},
            "p": {},
        },
    ),
    (
        "an advertisement in vain",
        (advert({"advertisementType": "CiliumPodIPPool"}),),
        {
            "all": {
                "NothingAnnounced": "advertisements[0]: there are no pod IP pools here; "
                "pod ranges are PodCIDR"
            }
        },
    ),
]


@pytest.mark.parametrize(("objects", "expected"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_conditions(objects: tuple[Resource, ...], expected: dict[str, dict[str, str]]) -> None:
    assert conditions(*objects) == expected


def test_the_oldest_config_holds() -> None:
    late = config("a", asn=1, created="2026-02-01T00:00:00Z")
    found = decide(world(late, config("b", asn=2), peer_config())).speaker
    assert found is not None
    assert found.asn == 2
