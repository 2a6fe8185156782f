"""The worked examples of the policy reference, asked as ``cirri policy test`` asks them."""

from pathlib import Path

import pytest

from cirri.whatif.run import run
from cirri.whatif.suite import Suite, suites

FILES = sorted((Path(__file__).parent / "examples").glob("[0-9]*.yaml"))
SUITES = suites([str(file) for file in FILES])


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_example(suite: Suite) -> None:
    results, warnings = run(suite)
    assert [one for one in results if not one.passed] == []
    assert warnings == []
