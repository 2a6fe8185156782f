"""Who needs which label sets, as the tables say it."""

from collections.abc import Iterable
from typing import Any

import pytest

from cirri.identity.demand import Demand
from cirri.identity.needs import Needs
from cirri.model import Endpoint, NodeStatus, Resource, SelectorSet

WEB = ("k8s:app=web", "k8s:pod-template-hash=1")
EDGE = {"role": "edge", "kubernetes.io/hostname": "n1"}


def endpoint(number: int, labels: tuple[str, ...], identity: int = 0) -> Endpoint:
    return Endpoint(
        node="n1", id=number, namespace="shop", pod="p", container_id="c", interface="i",
        labels=labels, identity=identity,
    )  # fmt: skip


def needs() -> tuple[Needs, Demand]:
    demand = Demand()
    return Needs(demand), demand


def wanted(demand: Demand) -> set[str]:
    return {",".join(labels) for labels in demand.sets}


def test_only_relevant_labels_make_a_set() -> None:
    told, demand = needs()
    told.endpoint("n1.1", endpoint(1, WEB))
    told.endpoint("n1.2", endpoint(2, ("k8s:app=web", "k8s:pod-template-hash=2")))
    assert wanted(demand) == {"k8s:app=web"}
    told.endpoint("n1.1", None)
    assert wanted(demand) == {"k8s:app=web"}
    told.endpoint("n1.2", None)
    assert wanted(demand) == set()


def test_names_of_ports_count() -> None:
    told, demand = needs()
    told.endpoint("n1.1", endpoint(1, (*WEB, "port:tcp/http=80")))
    told.endpoint("n1.2", endpoint(2, (*WEB, "port:tcp/http=8080")))
    assert wanted(demand) == {"k8s:app=web,port:tcp/http=80", "k8s:app=web,port:tcp/http=8080"}


@pytest.mark.parametrize(
    "labels", [(), ("reserved:health",), ("reserved:init",), ("k8s:pod-template-hash=1",)]
)
def test_who_needs_no_number(labels: tuple[str, ...]) -> None:
    told, demand = needs()
    told.endpoint("n1.1", endpoint(1, labels))
    assert wanted(demand) == set()


def test_another_filter_makes_other_sets() -> None:
    told, demand = needs()
    one = endpoint(1, ("k8s:app=web", "k8s:tier=a"), 700)
    told.endpoint("n1.1", one)
    assert told.configure({"labels": "k8s:app"})
    told.endpoint("n1.1", one)
    assert wanted(demand) == {"k8s:app=web"}
    assert demand.holds(700)
    assert not told.configure({"labels": "["})
    assert told.filter_error.startswith("label filter: '[' is not a prefix")
    assert not told.configure({"labels": "k8s:app"})
    assert told.filter_error == ""


def selector(prefixes: Iterable[str]) -> SelectorSet:
    return SelectorSet(key="s", text="", prefixes=tuple(prefixes))


def test_prefixes_of_selectors() -> None:
    told, demand = needs()
    told.selector("a", selector(["10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0", "nonsense"]))
    told.selector("b", selector(["10.0.0.0/8"]))
    world = "cidr:10.0.0.0/8,reserved:world-ipv4"
    assert wanted(demand) == {world, "cidr:2001-db8--0/32,reserved:world-ipv6"}
    told.selector("a", None)
    assert wanted(demand) == {world}
    told.selector("b", selector([]))
    assert wanted(demand) == set()


def node(name: str, labels: dict[str, str]) -> Resource:
    return Resource(kind="Node", name=name, manifest={"metadata": {"labels": labels}})


def api_server(*addresses: str) -> Resource:
    manifest: dict[str, Any] = {
        "metadata": {"labels": {"kubernetes.io/service-name": "kubernetes"}},
        "endpoints": [{"addresses": list(addresses)}],
    }
    return Resource(kind="EndpointSlice", namespace="default", name="k", manifest=manifest)


N1, N2 = NodeStatus(node="n1", addresses=("192.168.3.1", "fd00::1")), NodeStatus(node="n2")
CASES: list[tuple[str, dict[str, str], dict[str, str], tuple[str, ...], set[str]]] = [
    ("a node without labels", {}, {}, (), set()),
    ("labels that count make a host form", {}, EDGE, (), {"k8s:role=edge,reserved:host"}),
    (
        "by labels: a remote form of all of them",
        {"enable-node-selector-labels": "true"},
        EDGE,
        (),
        {
            "k8s:role=edge,reserved:host",
            "node:kubernetes.io/hostname=n1,node:role=edge,reserved:remote-node",
        },
    ),
    (
        "by address: both forms",
        {"policy-cidr-match-mode": "nodes"},
        {},
        (),
        {
            "cidr:192.168.3.1/32,cidr:fd00--1/128,reserved:host",
            "cidr:192.168.3.1/32,cidr:fd00--1/128,reserved:remote-node",
        },
    ),
    (
        "an API server: its remote form is reserved",
        {},
        {},
        ("fd00::1",),
        {"reserved:host,reserved:kube-apiserver"},
    ),
    (
        "an API server outside",
        {},
        {},
        ("203.0.113.9",),
        {"cidr:203.0.113.9/32,reserved:kube-apiserver,reserved:world-ipv4"},
    ),
    ("a filter", {"labels": "!role"}, EDGE, (), set()),
    ("a configuration that is wrong elsewhere", {"enable-policy": "x"}, {}, (), set()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("id_", "config", "labels", "servers", "sets"), CASES, ids=[case[0] for case in CASES]
)
def test_forms_of_nodes(
    id_: str, config: dict[str, str], labels: dict[str, str], servers: tuple[str, ...], sets: set[str]
) -> None:
    told, demand = needs()
    told.configure(config)
    told.nodes([N1], [node("n1", labels)], [api_server(*servers)])
    assert wanted(demand) == sets


def test_nodes_come_change_and_go() -> None:
    told, demand = needs()
    objects = [node("n1", EDGE), node("n2", {"role": "core"}), node("n3", {"role": "edge"})]
    told.nodes([N1, N2], objects, [])
    assert wanted(demand) == {"k8s:role=edge,reserved:host", "k8s:role=core,reserved:host"}, (
        "n3 did not report"
    )
    told.nodes([N1], objects, [])
    assert wanted(demand) == {"k8s:role=edge,reserved:host"}
    told.nodes([N1], [node("n1", {"role": "core"})], [])
    assert wanted(demand) == {"k8s:role=core,reserved:host"}
    assert told.configure({"labels": "!role"})
    told.nodes([], [], [])
    assert wanted(demand) == set(), "gone while the configuration changed"


def test_an_address_outside_becomes_that_of_a_node() -> None:
    told, demand = needs()
    told.nodes([], [], [api_server("192.168.3.1")])
    assert wanted(demand) == {"cidr:192.168.3.1/32,reserved:kube-apiserver,reserved:world-ipv4"}
    told.nodes([N1], [], [api_server("192.168.3.1")])
    assert wanted(demand) == {"reserved:host,reserved:kube-apiserver"}
