"""Deployments become Pods, step by step, whatever the Pods are like now."""

import itertools
from typing import Any, NamedTuple

import pytest

from cirri.lab.deployments import ALPHABET, HASH_LABEL, plan, template_hash
from cirri.lab.objects import Ref, condition, labels

OWNER = "Deployment-web"


class Case(NamedTuple):
    """With *pods* as (name, of the current template?, ready?): how many are created, who goes."""

    id: str
    replicas: int
    pods: list[tuple[str, bool, bool]]
    create: int
    delete: list[str]


CASES = [
    Case("from nothing", 2, [], 2, []),
    Case("complete", 2, [("a", True, True), ("b", True, True)], 0, []),
    Case("one was deleted", 2, [("a", True, True)], 1, []),
    Case("scaled up", 4, [("a", True, True), ("b", True, True)], 2, []),
    Case("scaled down, who is not ready goes first", 1, [("a", True, True), ("b", True, False)], 0, ["b"]),
    Case("scaled to nothing", 0, [("a", True, True), ("b", True, True)], 0, ["a", "b"]),
    Case("new template: one more first", 2, [("a", False, True), ("b", False, True)], 1, []),
    Case("new pod not ready yet", 2, [("a", False, True), ("b", False, True), ("c", True, False)], 0, []),
    Case("new pod ready", 2, [("a", False, True), ("b", False, True), ("c", True, True)], 0, ["a"]),
    Case("old pod that serves nobody", 2, [("a", False, False), ("b", False, True)], 1, ["a"]),
    Case("last old one", 2, [("a", False, True), ("b", True, True), ("c", True, True)], 0, ["a"]),
]


def names() -> Any:
    counter = itertools.count()
    return lambda: f"x{next(counter)}"


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_plan(case: Case, make: Any) -> None:
    web = make.deployment(replicas=case.replicas)
    current = template_hash(web)
    pods = [
        make.pod(name, ready=ready, owner=OWNER, labels={HASH_LABEL: current if new else "old"})
        for name, new, ready in case.pods
    ]

    step = plan([web], pods, names())

    assert len(step.create) == case.create
    assert list(step.delete) == [Ref("Pod", "default", name) for name in case.delete]


def test_a_created_pod_carries_owner_hash_and_template(make: Any) -> None:
    web = make.deployment(replicas=1, image="quay.io/cilium/starwars")

    (pod,) = plan([web], [], lambda: "abcde").create

    digest = template_hash(web)
    assert pod["metadata"]["name"] == f"web-{digest}-abcde"
    assert pod["metadata"]["labels"] == {"app": "web", HASH_LABEL: digest}
    assert pod["metadata"]["ownerReferences"][0]["uid"] == OWNER
    assert pod["spec"]["containers"][0]["image"] == "quay.io/cilium/starwars"


def test_pods_of_a_deleted_deployment_go_and_others_stay(make: Any) -> None:
    orphan, own = make.pod("orphan", owner="gone"), make.pod("mine")

    assert plan([], [orphan, own], names()).delete == (Ref("Pod", "default", "orphan"),)


def test_the_hash_follows_the_template_alone(make: Any) -> None:
    assert template_hash(make.deployment(replicas=1)) == template_hash(make.deployment(replicas=5))
    assert template_hash(make.deployment(image="a")) != template_hash(make.deployment(image="b"))
    assert set(template_hash(make.deployment())) <= set(ALPHABET)


@pytest.mark.parametrize(
    "start", [[], [("a", False, True), ("b", False, True), ("c", False, False)]], ids=str
)
def test_steps_lead_to_the_replicas_and_then_rest(start: list[tuple[str, bool, bool]], make: Any) -> None:
    """Never fewer ready pods than before the roll-out began, up to the number asked for."""
    web = make.deployment(replicas=2)
    pods = {n: make.pod(n, ready=ready, owner=OWNER, labels={HASH_LABEL: "old"}) for n, _, ready in start}
    ready = sum(r for _, _, r in start)
    suffix = names()

    for _ in range(20):
        step = plan([web], pods.values(), suffix)
        if not step.create and not step.delete:
            break
        for gone in step.delete:
            del pods[gone.name]
        assert sum(condition(p, "Ready") for p in pods.values()) >= min(ready, 2)
        for manifest in step.create:
            stored = make.stored(manifest, {"conditions": [{"type": "Ready", "status": "True"}]})
            pods[stored.name] = stored

    assert {labels(p)[HASH_LABEL] for p in pods.values()} == {template_hash(web)}
    assert len(pods) == 2


def test_status_counts_and_is_written_once(make: Any) -> None:
    web = make.deployment(replicas=2)
    pods = [
        make.pod(n, ready=n == "a", owner=OWNER, labels={HASH_LABEL: template_hash(web)}) for n in ("a", "b")
    ]

    (status,) = plan([web], pods, names()).statuses

    assert status["status"] == {
        "observedGeneration": 1,
        "replicas": 2,
        "updatedReplicas": 2,
        "readyReplicas": 1,
        "availableReplicas": 1,
    }
    again = make.stored(web.manifest, status["status"])
    assert plan([again], pods, names()).statuses == ()
