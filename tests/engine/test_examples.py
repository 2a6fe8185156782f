"""The worked examples of the policy reference, asked as ``cirri policy test`` asks them."""

import re
from pathlib import Path

import pytest

from cirri.whatif.run import run
from cirri.whatif.suite import Suite, suites
from cirri.whatif.world import Contradiction

FOLDER = Path(__file__).parent / "examples"
SUITES = suites([str(file) for file in sorted(FOLDER.glob("[0-9]*.yaml"))])
ELSEWHERE = {
    36: "below: it has no answer",
    39: "tests/engine/test_names.py",
    58: "a connection that lives on: integration/lab",
}


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_example(suite: Suite) -> None:
    results, warnings = run(suite)
    assert [one for one in results if not one.passed] == []
    assert not any(one.startswith("left out") for one in warnings)


def test_no_example_is_left_out() -> None:
    found = {int(match[1]) for suite in SUITES if (match := re.match(r"EX-(\d+) ", suite.name))}
    assert found | ELSEWHERE.keys() == set(range(1, 62))


def test_rules_that_contradict_each_other() -> None:
    """EX-36."""
    (suite,) = suites([str(FOLDER / "conflict.yaml")])
    with pytest.raises(Contradiction) as caught:
        run(suite)
    assert caught.value.errors.keys() == {"shop/api"}
    assert "http" in str(caught.value)
    assert "custom" in str(caught.value)
