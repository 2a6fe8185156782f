"""What tracing policies say of themselves: hooks, or the field that cannot be served."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from cirri.model import Resource
from cirri.model.runtimeevents import PolicyState
from cirri.sensor.statuses import changed

NOW, EARLIER = "2026-11-23T12:00:00Z", "2026-11-22T12:00:00Z"
SERVED = {
    "type": "cirri.io/Served",
    "status": "True",
    "reason": "Hooks",
    "message": "sys_a at sys_enter; sys_b at sys_enter, sys_exit",
}
REFUSED = {**SERVED, "status": "False", "reason": "NotServed", "message": "spec.uprobes: is not served"}
FAILED = {
    "type": "cirri.io/FailedOn.n1",
    "status": "True",
    "reason": "KernelOrCompiler",
    "message": "too long",
}
THERE = {**FAILED, "type": "cirri.io/FailedOn.n2"}
GOOD = PolicyState(name="p", state="enabled", hooks={"sys_b": "sys_enter, sys_exit", "sys_a": "sys_enter"})
BAD = PolicyState(name="p", state="not served", why="spec.uprobes: is not served")
BROKEN = PolicyState(name="p", state="failed", why="too long", hooks=GOOD.hooks)


def at(since: str, *conditions: dict[str, str]) -> list[dict[str, str]]:
    return [{**each, "lastTransitionTime": since} for each in conditions]


class Row(NamedTuple):
    """What it said, how node n1 serves it, and what it says then (None: the same)."""

    id: str
    before: list[dict[str, str]]
    state: PolicyState | None
    after: list[dict[str, str]] | None


ROWS = [
    Row("served", [], GOOD, at(NOW, SERVED)),
    Row("nothing new", at(EARLIER, SERVED), GOOD, None),
    Row("not looked at yet", [], None, None),
    Row("not served any more", at(EARLIER, SERVED), BAD, at(NOW, REFUSED)),
    Row("another reason", at(EARLIER, {**REFUSED, "message": "x"}), BAD, at(EARLIER, REFUSED)),
    Row("refused by this kernel", at(EARLIER, SERVED), BROKEN, at(EARLIER, SERVED) + at(NOW, FAILED)),
    Row("no longer", at(EARLIER, SERVED, FAILED), GOOD, at(EARLIER, SERVED)),
    Row("another node's failure stays", at(EARLIER, SERVED, THERE), GOOD, None),
]


@pytest.mark.parametrize("namespaced", [False, True])
@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.id)
def test_conditions(row: Row, namespaced: bool) -> None:
    kind, namespace = ("TracingPolicyNamespaced", "shop") if namespaced else ("TracingPolicy", "")
    manifest: dict[str, Any] = {"spec": {}, "status": {"conditions": row.before, "other": 1}}
    policy = Resource(kind=kind, namespace=namespace, name="p", manifest=manifest)
    states = {"shop/p" if namespaced else "p": row.state} if row.state else {}
    found = [each["status"] for each in changed([policy], states, "n1", NOW)]

    assert found == ([] if row.after is None else [{"conditions": row.after, "other": 1}])
