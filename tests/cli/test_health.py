"""What ``cirri status`` finds wrong."""

from typing import Any

import pytest

from cirri.cli.health import (
    Consumer,
    Instance,
    Node,
    Report,
    components,
    managed,
    node_reports,
    proxies,
    slow_readers,
)
from cirri.cli.status import text
from cirri.model import Ack, Endpoint, NodeStatus, PodCIDRs, Resource
from cirri.model.request import L7Listener, L7Listeners
from cirri.runtime import Service

CLUSTER = Service(name="policy", summary="", scope="cluster")
NODE = Service(name="datapath", summary="", scope="node")
TWICE = Service(name="dnsproxy", summary="", scope="node", replicas=2)


def instance(name: str, **metadata: str) -> Instance:
    return Instance(name=name, id="1", metadata=metadata)


def redirect(state: str) -> L7Listener:
    return L7Listener(port=10100, direction="ingress", identity=1, kind="http", state=state)


@pytest.mark.parametrize(
    ("service", "instances", "problems"),
    [
        (CLUSTER, [instance("policy", leader="yes", ready="yes")], ()),
        (CLUSTER, [], ("not running",)),
        (CLUSTER, [instance("policy", leader="yes", ready="no", why="no bus")], ("not ready: no bus",)),
        (CLUSTER, [instance("policy", leader="no", ready="no"), instance("policy", leader="yes")], ()),
        (NODE, [instance("datapath", node="a"), instance("datapath", node="b")], ()),
        (NODE, [instance("datapath", node="b")], ("not running on a",)),
        (TWICE, [instance("dnsproxy", node=node) for node in "aabb"], ()),
        (TWICE, [instance("dnsproxy", node=node) for node in "abb"], ("1 of 2 running on a",)),
        (
            NODE,
            [instance("datapath", node="a", ready="no", why="w"), instance("datapath", node="b")],
            ("not ready on a: w",),
        ),
    ],
)
def test_components(service: Service, instances: list[Instance], problems: tuple[str, ...]) -> None:
    (found,) = components([service], instances, ["a", "b"])
    assert found.problems == problems
    assert found.ok == (not problems)


@pytest.mark.parametrize(
    ("replies", "words"),
    [
        ({}, "Envoy on 0/2 nodes, 0 redirects serve"),
        ({"a": L7Listeners(envoys=1), "b": L7Listeners(envoys=2)}, "Envoy on 2/2 nodes, 0 redirects serve"),
        (
            {"a": L7Listeners(envoys=0, listeners=(redirect("failed"), redirect("serving")))},
            "Envoy on 0/2 nodes, 1 redirects serve, 1 failed",
        ),
    ],
    ids=["nobody answers", "idle", "failed"],
)
def test_proxies(replies: dict[str, L7Listeners], words: str) -> None:
    assert proxies(["a", "b"], replies) == words


def endpoint(**fields: Any) -> Endpoint:
    given = {"node": "n", "id": 1, "namespace": "default", "pod": "p", "container_id": "", "interface": ""}
    return Endpoint(**{**given, **fields})


@pytest.mark.parametrize(
    ("status", "ranges", "endpoints", "problems"),
    [
        (NodeStatus(node="n"), None, [], ()),
        (None, None, [], ("has not reported",)),
        (NodeStatus(node="n", errors=("map full",)), None, [], ("map full",)),
        (
            NodeStatus(node="n"),
            PodCIDRs(node="n", error="the pools are exhausted"),
            [],
            ("the pools are exhausted",),
        ),
        (
            NodeStatus(node="n", addresses_used=254, addresses_total=254),
            None,
            [],
            ("all 254 pod addresses are in use",),
        ),
        (NodeStatus(node="n"), None, [endpoint(error="no policy")], ("endpoint 1 (default/p): no policy",)),
    ],
)
def test_nodes(
    status: NodeStatus | None, ranges: PodCIDRs | None, endpoints: list[Endpoint], problems: tuple[str, ...]
) -> None:
    statuses = {"n": status} if status else {}
    (found,) = node_reports(["n"], statuses, {"n": ranges} if ranges else {}, endpoints, {})
    assert found.problems == problems


def test_acknowledged_revisions() -> None:
    acks = {"n": Ack(node="n", policy_revision=5, resources_revision=4)}
    (found,) = node_reports(["n"], {"n": NodeStatus(node="n")}, {}, [], acks)
    assert (found.policy_revision, found.resources_revision) == (5, 4)


def test_pods_on_the_hosts_network_are_not_ours() -> None:
    def pod(name: str, node: str = "n", **spec: Any) -> Resource:
        return Resource(kind="Pod", namespace="default", name=name, node=node, manifest={"spec": spec})

    pods = [pod("a"), pod("b"), pod("host", hostNetwork=True), pod("unscheduled", "")]
    endpoints = [endpoint(pod="a", state="ready"), endpoint(pod="b", state="regenerating")]

    assert managed(pods, endpoints) == (1, 2)


def test_slow_readers_are_named() -> None:
    consumers = [
        Consumer(name="datapath-node1_ab12_0", num_pending=500),
        Consumer(name="cli_1_1", num_pending=3),
    ]
    assert slow_readers("resources", consumers) == [
        "datapath-node1 is 500 messages of bucket resources behind"
    ]


def test_the_report_says_which_node_is_behind_with_its_policies() -> None:
    nodes = (
        Node(name="a", policy_revision=20, resources_revision=22),
        Node(name="b", policy_revision=18, resources_revision=22, addresses_used=4, addresses_total=508),
    )
    report = Report(
        ok=True, bus="ok", revision=23, policy_revision=20, components=(), nodes=nodes, pods=0, managed=0,
        identities=3,
    )  # fmt: skip
    lines = text(report).splitlines()
    rows = [[c.strip() for c in line.split("   ") if c.strip()] for line in lines]
    assert ["NODE", "POLICIES", "SERVICES", "ENDPOINTS", "POD IPS (v4+v6)", "POD CIDRS"] in rows
    assert ["a", "20", "22", "0", "0/0", "<none>"] in rows
    assert ["b", "18 of 20", "22", "0", "4/508", "<none>"] in rows
    assert "Objects:       newest change is revision 23" in lines
