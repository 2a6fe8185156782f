"""``plan`` turns any realized state into the desired one, whatever came before."""

from collections.abc import Mapping
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cirri.reconcile import Plan, applied, plan

State = Mapping[str, int]


class Case(NamedTuple):
    """From *realized* to *desired* takes exactly *expected*."""

    id: str
    realized: State
    desired: State
    expected: Plan[str, int]


CASES = [
    Case("nothing to do", {"a": 1}, {"a": 1}, Plan()),
    Case("both empty", {}, {}, Plan()),
    Case("new key", {}, {"a": 1}, Plan(put={"a": 1})),
    Case("changed value", {"a": 1}, {"a": 2}, Plan(put={"a": 2})),
    Case("stale key", {"a": 1}, {}, Plan(drop=frozenset("a"))),
    Case(
        "all at once",
        {"a": 1, "b": 2, "c": 3},
        {"b": 2, "c": 4, "d": 5},
        Plan(put={"c": 4, "d": 5}, drop=frozenset("a")),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_plan(case: Case) -> None:
    assert plan(case.desired, case.realized) == case.expected
    assert bool(case.expected) is (case.desired != case.realized)


def test_plan_puts_a_value_that_equals_nothing() -> None:
    assert plan({"a": None}, {}) == Plan(put={"a": None})


states = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3))


@given(states, states)
def test_applying_a_plan_gives_the_desired_state(desired: State, realized: State) -> None:
    changes = plan(desired, realized)
    assert applied(realized, changes) == desired
    assert len(changes) <= len(desired) + len(realized)
