"""Tables and ages."""

from datetime import UTC, datetime, timedelta

import pytest

from cirri.cli.output import age, table

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (3599, "59m"),
        (10800, "3h"),
        (12000, "3h20m"),
        (90000, "25h"),
        (200000, "2d7h"),
        (1000000, "11d"),
    ],
)
def test_age(seconds: int, expected: str) -> None:
    created = (NOW - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
    assert age(created, NOW) == expected


@pytest.mark.parametrize("created", ["", "yesterday"])
def test_no_age(created: str) -> None:
    assert age(created, NOW) == "<unknown>"


def test_cells_may_have_several_lines() -> None:
    rows = [("1", ["a", "bb"], "x"), ("2", [], "y")]
    assert table((("ID", "LABELS", "Z"), ("", "more", "")), rows).splitlines() == [
        "ID   LABELS   Z",
        "     more",
        "1    a        x",
        "     bb",
        "2             y",
    ]
