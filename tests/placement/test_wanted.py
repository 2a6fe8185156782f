"""What policies want announced, and which nodes may."""

from typing import Any, NamedTuple

import pytest

from cirri.loadbalancer import L2_CLASS
from cirri.model import Resource
from cirri.placement import Candidate, InvalidL2Policy, L2Policy, faults, policy_of, wanted
from cirri.placement.policies import BAD_INTERFACES, BAD_NODES, BAD_SERVICES

BOTH: dict[str, Any] = {"loadBalancerIPs": True, "externalIPs": True}
LB, EXTERNAL = "192.168.3.200", "10.0.0.9"


def policy(name: str = "p", **spec: Any) -> Resource:
    return Resource(kind="CiliumL2AnnouncementPolicy", name=name, manifest={"spec": spec})


def service(name: str = "web", ip: str = LB, notes: dict[str, str] | None = None, **spec: Any) -> Resource:
    manifest = {
        "metadata": {"labels": {"app": name}, "annotations": notes or {}},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.5", "externalIPs": [EXTERNAL], **spec},
        "status": {"loadBalancer": {"ingress": [{"ip": ip}]}},
    }
    return Resource(kind="Service", namespace="d", name=name, manifest=manifest)


def node(name: str, role: str = "edge", devices: tuple[str, ...] = ("eth0",), weight: str = "1") -> Candidate:
    about = {"labels": {"role": role}, "annotations": {"l2.cirri.io/weight": weight}}
    return Candidate.of(Resource(kind="Node", name=name, manifest={"metadata": about}), devices)


def slices(*nodes: str) -> dict[tuple[str, str], list[Resource]]:
    listed = [{"addresses": ["10.52.0.4"], "nodeName": each} for each in nodes]
    part = Resource(kind="EndpointSlice", name="s", manifest={"addressType": "IPv4", "endpoints": listed})
    return {("d", "web"): [part], ("d", "other"): [part]}


NODES = [node("n1"), node("n2", "core", ("bond0", "eth0"))]


class Case(NamedTuple):
    id: str
    policies: list[Resource]
    expected: dict[str, dict[str, tuple[str, ...]]]
    """By address: which nodes, on which devices."""
    services: tuple[Resource, ...] = (service(),)
    behind: tuple[str, ...] = ()


LOCAL: dict[str, Any] = {"externalTrafficPolicy": "Local"}
ONLY_LB: dict[str, Any] = {"loadBalancerIPs": True}
N1: dict[str, tuple[str, ...]] = {"n1": ("eth0",)}
N2: dict[str, tuple[str, ...]] = {"n2": ("bond0", "eth0")}
BOND: dict[str, tuple[str, ...]] = {"n2": ("bond0",)}
ETH0: dict[str, tuple[str, ...]] = {"n1": ("eth0",), "n2": ("eth0",)}
EVERY = N1 | N2
CASES = [
    Case("no policy", [], {}),
    Case("neither kind of address", [policy()], {}),
    Case("all", [policy(**BOTH)], {LB: EVERY, EXTERNAL: EVERY}),
    Case("addresses of pools", [policy(**ONLY_LB)], {LB: EVERY}),
    Case("external addresses", [policy(externalIPs=True)], {EXTERNAL: EVERY}),
    Case(
        "two policies",
        [policy("a", externalIPs=True), policy("b", loadBalancerIPs=True)],
        {LB: EVERY, EXTERNAL: EVERY},
    ),
    Case("other Services", [policy(**BOTH, serviceSelector={"matchLabels": {"app": "db"}})], {}),
    Case(
        "by namespace and name",
        [
            policy(
                loadBalancerIPs=True,
                serviceSelector={
                    "matchLabels": {
                        "io.kubernetes.service.namespace": "d",
                        "io.kubernetes.service.name": "web",
                    }
                },
            )
        ],
        {LB: EVERY},
    ),
    Case("some nodes", [policy(**ONLY_LB, nodeSelector={"matchLabels": {"role": "edge"}})], {LB: N1}),
    Case("no node", [policy(**ONLY_LB, nodeSelector={"matchLabels": {"role": "x"}})], {LB: {}}),
    Case("some devices", [policy(**ONLY_LB, interfaces=["^bond[0-9]+"])], {LB: BOND}),
    Case(
        "part of a name is enough",
        [policy(**ONLY_LB, interfaces=["th0"])],
        {LB: ETH0},
    ),
    Case("another class", [policy(**BOTH)], {}, (service(loadBalancerClass="io.cilium/bgp-control-plane"),)),
    Case("our class", [policy(**ONLY_LB)], {LB: EVERY}, (service(loadBalancerClass=L2_CLASS),)),
    Case("Local", [policy(**ONLY_LB)], {LB: N2}, (service(**LOCAL),), ("n2",)),
    Case("Local without backend", [policy(**ONLY_LB)], {LB: {}}, (service(**LOCAL),)),
    Case("Cluster without backend", [policy(**ONLY_LB)], {LB: EVERY}),
    Case(
        "a node that an annotation names",
        [policy(**ONLY_LB)],
        {LB: N1},
        (service(notes={"service.cilium.io/node": "n1"}),),
    ),
    Case(
        "a shared address is where most of its Services are served",
        [policy("a", loadBalancerIPs=True)],
        {LB: N2},
        (service(), service("other", notes={"service.cilium.io/node": "n2"})),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_is_wanted(case: Case) -> None:
    found = wanted([policy_of(each) for each in case.policies], case.services, slices(*case.behind), NODES)
    assert {address: one.devices for address, one in found.items()} == case.expected


def test_who_wants_it_is_named() -> None:
    found = wanted([policy_of(policy("a", **BOTH)), policy_of(policy("b", **BOTH))], (service(),), {}, NODES)
    assert (found[LB].services, found[LB].policies) == (("d/web",), ("a", "b"))


@pytest.mark.parametrize(("text", "weight"), [("1", 1), ("0", 0), ("7", 7), ("256", 1), ("-1", 1), ("x", 1)])
def test_a_weight_that_is_none_is_one(text: str, weight: int) -> None:
    assert node("n1", weight=text).weight == weight


WRONG = [
    ({"serviceSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}, [BAD_SERVICES]),
    ({"nodeSelector": {"matchLabels": {"a b": "c"}}}, [BAD_NODES]),
    ({"interfaces": ["eth0", "eth[", "(?=x)"]}, [BAD_INTERFACES, BAD_INTERFACES]),
    ({"serviceSelector": "all", "interfaces": ["*"]}, [BAD_SERVICES, BAD_INTERFACES]),
]


@pytest.mark.parametrize(("spec", "kinds"), WRONG)
def test_what_cannot_be_understood_announces_nothing(spec: dict[str, Any], kinds: list[str]) -> None:
    assert [kind for kind, _, _ in faults(policy(**spec))] == kinds
    with pytest.raises(InvalidL2Policy):
        policy_of(policy(**spec))


def test_a_policy_is_read() -> None:
    found = policy_of(policy(interfaces=["eth0"], externalIPs=True, loadBalancerIPs=False))
    assert found == L2Policy("p", (), (), ("eth0",), frozenset({"ExternalIPs"}))
