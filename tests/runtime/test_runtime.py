"""Where requests go."""

import pytest

from cirri.runtime import request_subject


@pytest.mark.parametrize(
    ("args", "subject"),
    [
        (("kubernetes", "apply"), "cirri.kubernetes.apply"),
        (("datapath", "flush", "n1"), "cirri.datapath.n1.flush"),
        (("datapath", "flush", "n1.example"), "cirri.datapath.n1=2Eexample.flush"),
    ],
)
def test_request_subject(args: tuple[str, ...], subject: str) -> None:
    assert request_subject(*args) == subject
