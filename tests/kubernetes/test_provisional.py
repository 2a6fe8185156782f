"""Which objects wait for their confirmation, and what becomes of them."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from cirri.kubernetes.applying import plan_apply
from cirri.kubernetes.provisional import (
    Terms,
    chosen,
    confirmed,
    deadline,
    due,
    guarded,
    left_s,
    time_of,
    time_text,
    undone,
)
from cirri.kubernetes.state import Change, Key, Provisional, Refused, key_of
from cirri.manifests import Document, check
from cirri.manifests.api import ObjectRef
from cirri.model import Resource

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = Key("CiliumClusterwideNetworkPolicy", "", "p")


def policy(port: int, *, node: bool = True, annotations: dict[str, str] | None = None) -> Resource:
    metadata: dict[str, Any] = {"name": "p", **({"annotations": annotations} if annotations else {})}
    ports = [{"ports": [{"port": str(port), "protocol": "TCP"}]}]
    manifest = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": metadata,
        "spec": {"nodeSelector" if node else "endpointSelector": {}, "ingress": [{"toPorts": ports}]},
    }
    return check(Document(manifest, file="f.yaml", line=1))


@dataclass
class World:
    """A state that plans are carried out on; each step is a second after the one before."""

    state: dict[Key, Resource] = field(default_factory=dict)
    pending: dict[Key, Provisional] = field(default_factory=dict)
    now: datetime = START

    def apply(self, new: Resource, within_s: int | None = None, *, for_good: bool = False) -> Change:
        changes = plan_apply(self.state, [new], now=time_text(self.now), new_uid=lambda: "uid")
        terms = Terms(self.now, within_s, for_good)
        (change,) = guarded(changes, self.state, self.pending, terms)
        self.take(change)
        return change

    def take(self, change: Change) -> None:
        key = key_of(change.resource)
        self.state.pop(key, None)
        self.pending.pop(key, None)
        if change.action != "deleted":
            self.state[key] = change.resource
        if change.provisional:
            self.pending[key] = change.provisional
        self.now += timedelta(seconds=1)

    def confirm(self) -> None:
        for change in confirmed(self.state, list(self.pending)):
            self.take(change)


class Step(NamedTuple):
    """One thing done, and what holds afterwards."""

    new: Resource | None
    """Applied; None: what is there is confirmed."""
    action: str
    left_s: int | None
    """Seconds it then waits for its confirmation, counted from when the step was done; None: for good."""
    back_to: int | None = None
    """Port of the version that comes back; None: it would be deleted."""
    within_s: int | None = None
    for_good: bool = False


ONE, TWO, THREE = policy(1), policy(2), policy(3)
PODS, MORE_PODS = policy(1, node=False), policy(2, node=False)
FIRST = Step(ONE, "created", None, for_good=True)
STORIES: dict[str, list[Step]] = {
    "a policy of nodes": [Step(ONE, "created", 60)],
    "a policy of pods": [Step(PODS, "created", None)],
    "a policy of pods, if one asks for it": [Step(PODS, "created", 5, within_s=5)],
    "for good": [FIRST],
    "in other time": [Step(ONE, "created", 300, within_s=300)],
    "an update goes back": [FIRST, Step(TWO, "configured", 60, back_to=1)],
    "from nodes to pods": [FIRST, Step(PODS, "configured", 60, back_to=1)],
    "the same again, confirmed": [FIRST, Step(ONE, "unchanged", None, within_s=60)],
    "the same again waits no longer": [Step(ONE, "created", 60), Step(ONE, "unchanged", 59)],
    "the same again, asked for": [Step(ONE, "created", 60), Step(ONE, "configured", 90, within_s=90)],
    "the same again, for good": [Step(ONE, "created", 60), Step(ONE, "configured", None, for_good=True)],
    "a second update goes back to what was confirmed": [
        FIRST,
        Step(TWO, "configured", 60, back_to=1),
        Step(THREE, "configured", 60, back_to=1),
    ],
    "a created one that is updated is deleted": [Step(ONE, "created", 60), Step(TWO, "configured", 60)],
    "a provisional policy of pods that is updated goes on to wait": [
        Step(PODS, "created", 60, within_s=60),
        Step(MORE_PODS, "configured", 59),
    ],
    "back to what was confirmed": [
        FIRST,
        Step(TWO, "configured", 60, back_to=1),
        Step(ONE, "configured", None),
    ],
    "confirmed": [
        Step(ONE, "created", 60),
        Step(None, "", None),
        Step(ONE, "unchanged", None),
        Step(TWO, "configured", 60, back_to=1),
    ],
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_what_waits_for_its_confirmation(story: list[Step]) -> None:
    world = World()
    for step in story:
        done_at = world.now
        if step.new is None:
            world.confirm()
        else:
            assert world.apply(step.new, step.within_s, for_good=step.for_good).action == step.action
        by = "" if step.left_s is None else time_text(done_at + timedelta(seconds=step.left_s))
        waiting = world.pending.get(KEY)
        assert ("" if waiting is None else waiting.by) == by == deadline(world.state[KEY])
        before = waiting.before if waiting else None
        assert (port_of(before) if before else None) == step.back_to


def port_of(resource: Resource) -> int:
    return int(resource.manifest["spec"]["ingress"][0]["toPorts"][0]["ports"][0]["port"])


def test_what_the_user_writes_as_the_deadline_is_ignored() -> None:
    wrote = policy(1, node=False, annotations={"cirri.io/confirm-by": "2030-01-01T00:00:00Z", "a": "b"})
    (change,) = plan_apply({}, [wrote], now="", new_uid=lambda: "uid")
    assert change.resource.manifest["metadata"]["annotations"] == {"a": "b"}


def test_undone_a_new_object_is_deleted_and_an_old_one_comes_back() -> None:
    world = World()
    world.apply(ONE)
    (change,) = undone(world.state, world.pending, [KEY])
    assert (change.action, change.provisional) == ("deleted", None)

    world = World()
    first = world.apply(ONE, for_good=True).resource
    world.apply(TWO)
    (change,) = undone(world.state, world.pending, [KEY])
    assert (change.action, change.provisional) == ("restored", None)
    assert (port_of(change.resource), deadline(change.resource)) == (1, "")
    metadata = {**change.resource.manifest["metadata"], "generation": 1}
    assert {**change.resource.manifest, "metadata": metadata} == first.manifest
    assert change.resource.manifest["metadata"]["generation"] == 3


def test_confirmed_only_the_deadline_is_gone() -> None:
    world = World()
    before = world.apply(policy(1, annotations={"a": "b"})).resource.manifest
    (change,) = confirmed(world.state, [KEY])
    after = change.resource.manifest
    assert change.action == "confirmed"
    assert after["metadata"].pop("annotations") == {"a": "b"}
    assert before["metadata"].pop("annotations").keys() == {"a", "cirri.io/confirm-by"}
    assert after == before


@pytest.mark.parametrize(
    ("seconds", "is_due", "left"), [(-1, False, 1), (-0.5, False, 0.5), (0, True, 0), (9, True, -9)]
)
def test_due(seconds: float, is_due: bool, left: float) -> None:
    pending = {
        KEY: Provisional(time_text(START)),
        KEY._replace(name="q"): Provisional("2030-01-01T00:00:00Z"),
    }
    now = START + timedelta(seconds=seconds)
    assert due(pending, now) == ([KEY] if is_due else [])
    assert left_s(pending, now) == left
    assert left_s({}, now) is None


def test_deadlines_are_rounded_up() -> None:
    moment = START + timedelta(milliseconds=1)
    assert time_text(moment) == "2026-01-02T03:04:06Z"
    assert time_of(time_text(moment)) >= moment


REF = ObjectRef(kind=KEY.kind, name=KEY.name)
PENDING = {KEY: Provisional("x"), Key("CiliumNetworkPolicy", "default", "r"): Provisional("x")}


@pytest.mark.parametrize(
    ("refs", "keys"),
    [
        ([], sorted(PENDING)),
        ([REF], [KEY]),
        ([REF, REF], [KEY]),
        ([ObjectRef(kind="CiliumNetworkPolicy", name="r")], [Key("CiliumNetworkPolicy", "default", "r")]),
    ],
)
def test_chosen(refs: list[ObjectRef], keys: list[Key]) -> None:
    assert chosen(PENDING, refs) == keys


def test_what_is_not_provisional_is_refused() -> None:
    other = ObjectRef(kind="CiliumNetworkPolicy", namespace="shop", name="r")
    with pytest.raises(Refused) as refused:
        chosen(PENDING, [REF, other, ObjectRef(kind="x", name="y")])
    assert [problem.path for problem in refused.value.problems] == ["CiliumNetworkPolicy/shop/r", "x/y"]
