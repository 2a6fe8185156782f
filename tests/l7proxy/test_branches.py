"""Of many rules those are asked that a path can be like, all of them, in their order, and few others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cirri.l7proxy.branches import LONGEST, branches

WORDS = st.text(alphabet="/ab\N{CLOUD}", max_size=6)


def asked(beginnings: list[str], text: str) -> list[int]:
    """As Envoy does: by the longest key."""
    found = branches(beginnings)
    keys = [key for key in found if text.startswith(key)]
    return list(found[max(keys, key=len)]) if keys else []


@given(st.lists(WORDS, max_size=30), WORDS)
def test_whatever_could_match_is_asked_in_order(beginnings: list[str], text: str) -> None:
    numbers = asked(beginnings, text)
    assert numbers == sorted(numbers)
    assert {n for n, start in enumerate(beginnings) if text.startswith(start)} <= set(numbers)


@pytest.mark.parametrize(
    ("beginnings", "expected"),
    [
        ([], {}),
        (["", ""], {"": [0, 1]}),
        (["/a/1", "/a/2", "/b"], {"/a/1": [0], "/a/2": [1], "/b": [2]}),
        (["/long/1", "/other"], {"/l": [0], "/o": [1]}),
        (["/a", "/a/b", "/a/c", "/a"], {"/a": [0, 3], "/a/b": [0, 1, 3], "/a/c": [0, 2, 3]}),
        (["/a", "", "/b"], {"": [1], "/a": [0, 1], "/b": [1, 2]}),
        (["x" * 500 + "1", "x" * 500 + "2"], {"x" * LONGEST: [0, 1]}),
    ],
)
def test_keys_are_as_short_as_can_be(beginnings: list[str], expected: dict[str, list[int]]) -> None:
    assert branches(beginnings) == expected


def test_of_a_hundred_one_is_asked() -> None:
    beginnings = [f"/v1/item-{n}/" for n in range(100)]
    assert asked(beginnings, "/v1/item-50/7") == [50]


def test_where_it_is_not_worth_it_all_are_asked() -> None:
    beginnings = [""] * 50 + [f"/{n}" for n in range(100, 200)]
    assert branches(beginnings) == {"": range(150)}
