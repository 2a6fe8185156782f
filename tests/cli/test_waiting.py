"""Which nodes are behind, and what is not ready."""

from typing import Any

import pytest

from cirri.cli.waiting import Goal, behind, goal_of, unready
from cirri.manifests.api import Result
from cirri.model import Ack, NodeStatus, Resource


def result(kind: str, revision: int, name: str = "x") -> Result:
    return Result(kind=kind, namespace="default", name=name, action="configured", revision=revision)


@pytest.mark.parametrize(
    ("results", "goal"),
    [
        ([], Goal()),
        ([result("CiliumNetworkPolicy", 5), result("NetworkPolicy", 7)], Goal(7, 0)),
        ([result("Namespace", 5), result("Pod", 4)], Goal()),
        ([result("Service", 5), result("EndpointSlice", 6), result("Node", 4)], Goal(0, 6)),
        ([result("Deployment", 9), result("ConfigMap", 9)], Goal()),
        ([result("ConfigMap", 9, "cirri-config")], Goal(9, 0)),
        ([result("Service", 5), result("NetworkPolicy", 6)], Goal(6, 5)),
    ],
)
def test_goal(results: list[Result], goal: Goal) -> None:
    assert goal_of(results) == goal


@pytest.mark.parametrize(
    ("goal", "status", "ack", "late"),
    [
        (Goal(5, 0), NodeStatus(node="n"), Ack(node="n", policy_revision=5), {}),
        (
            Goal(5, 0),
            NodeStatus(node="n"),
            Ack(node="n", policy_revision=4),
            {"n": "policies up to 4 of 5"},
        ),
        (
            Goal(0, 5),
            NodeStatus(node="n"),
            Ack(node="n", policy_revision=9),
            {"n": "services up to 0 of 5"},
        ),
        (
            Goal(5, 5),
            NodeStatus(node="n", errors=("no map",)),
            None,
            {"n": "policies up to 0 of 5 and services up to 0 of 5; no map"},
        ),
        (Goal(0, 0), None, None, {"n": "has not reported"}),
    ],
)
def test_behind(goal: Goal, status: NodeStatus | None, ack: Ack | None, late: dict[str, str]) -> None:
    assert behind(goal, ["n"], {"n": status} if status else {}, {"n": ack} if ack else {}) == late


def deployment(generation: int, **status: Any) -> Resource:
    manifest = {"metadata": {"generation": generation}, "spec": {"replicas": 2}, "status": status}
    return Resource(kind="Deployment", namespace="default", name="x", manifest=manifest)


def pod(**status: Any) -> Resource:
    return Resource(kind="Pod", namespace="default", name="x", manifest={"metadata": {}, "status": status})


@pytest.mark.parametrize(
    ("found", "late"),
    [
        (
            deployment(1, availableReplicas=1, observedGeneration=1),
            {"deployment x": "1 of 2 replicas available"},
        ),
        (
            deployment(2, availableReplicas=2, observedGeneration=1),
            {"deployment x": "2 of 2 replicas available"},
        ),
        (deployment(1, availableReplicas=2, observedGeneration=1), {}),
        (pod(phase="Running"), {"pod x": "Running"}),
        (pod(), {"pod x": "Pending"}),
        (pod(phase="Running", conditions=[{"type": "Ready", "status": "True"}]), {}),
        (pod(phase="Succeeded"), {}),
    ],
)
def test_unready(found: Resource, late: dict[str, str]) -> None:
    assert unready([result(found.kind, 1)], {(found.kind, "default", "x"): found}) == late
