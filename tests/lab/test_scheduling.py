"""Pods are spread: first the ones of one controller, then all."""

from collections import Counter
from typing import Any

from cirri.lab.objects import Ref
from cirri.lab.scheduling import assign


def test_replicas_are_spread_over_nodes(make: Any) -> None:
    pods = [make.pod(f"p{i}", owner="web") for i in range(4)]

    seats = assign(pods, [make.node("node1"), make.node("node2")])

    assert Counter(seats.values()) == {"node1": 2, "node2": 2}


def test_siblings_count_more_than_load(make: Any) -> None:
    there = [make.pod("a", node="node1", owner="web"), *(make.pod(f"x{i}", node="node2") for i in range(5))]

    seats = assign([*there, make.pod("b", owner="web")], [make.node("node1"), make.node("node2")])

    assert seats == {Ref("Pod", "default", "b"): "node2"}


def test_bare_pods_go_where_there_is_room(make: Any) -> None:
    there = [make.pod("a", node="node1")]

    seats = assign([*there, make.pod("b"), make.pod("c")], [make.node("node1"), make.node("node2")])

    assert seats[Ref("Pod", "default", "b")] == "node2"


def test_selectors_readiness_and_cordons_are_respected(make: Any) -> None:
    nodes = [
        make.node("node1", ready=False),
        make.node("node2", unschedulable=True),
        make.node("node3", labels={"disk": "ssd"}),
        make.node("node4"),
    ]
    pods = [make.pod("picky", nodeSelector={"disk": "ssd"}), make.pod("lost", nodeSelector={"disk": "tape"})]

    assert assign(pods, nodes) == {Ref("Pod", "default", "picky"): "node3"}


def test_the_answer_does_not_depend_on_the_order(make: Any) -> None:
    pods = [make.pod(f"p{i}", owner="web" if i % 2 else "") for i in range(7)]
    nodes = [make.node(f"node{i}") for i in (1, 2, 10)]

    assert assign(pods, nodes) == assign(pods[::-1], nodes[::-1])
