"""Ten thousand entries say the same as each of them alone, which is what the policy engine says."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cirri.dnsproxy.matcher import Matcher
from cirri.engine.names import canonical_name, matches_pattern

NAMES = [
    "example.com", "a.example.com", "a.b.example.com", "myexample.com", "com", "sub.cilium.io",
    "sub1.cilium.io", "1sub.cilium.io", "sub.x.cilium.io", "api.eu.example.com", "api.example.com",
    "api.eu.west.example.com",
    r"a\046b.example.com", r"a\195.example.com",
]  # fmt: skip
PATTERNS = [
    "*", "**", "*.", ".", "example.com", "*.example.com", "*example.com", "*.*.example.com", "**.example.com",
    "sub*.cilium.io", "api.*.example.com", "**.com", "a*b*c.example.com", "***.example.com",
    "**.**.example.com", "*.*", "**.", "EXAMPLE.com.", "*m*.com",
]  # fmt: skip


def pattern(text: str) -> str:
    return msgspec.json.encode({"matchPattern": text}).decode()


def exact(text: str) -> str:
    return msgspec.json.encode({"matchName": canonical_name(text)}).decode()


@pytest.mark.parametrize("text", PATTERNS)
@pytest.mark.parametrize("name", NAMES)
def test_patterns_mean_what_the_engine_says(text: str, name: str) -> None:
    assert bool(Matcher([(pattern(text), 1)]).find(name)) == matches_pattern(text, name)


@given(
    st.lists(st.text("ab-*.", min_size=1, max_size=12), min_size=1, max_size=8),
    st.lists(st.text("ab-", min_size=1, max_size=4), min_size=1, max_size=4),
)
def test_many_are_each(texts: list[str], labels: list[str]) -> None:
    name = ".".join(labels)
    found = Matcher((pattern(text), text) for text in texts).find(name)
    assert found == {text for text in texts if matches_pattern(text, name)}


@pytest.mark.parametrize(("text", "like"), [("*", True), (".", True), ("**.", False), ("*.*", False)])
def test_the_root_has_no_label(text: str, like: bool) -> None:
    assert bool(Matcher([(pattern(text), 1)]).find(".")) == like


def test_names() -> None:
    found = Matcher([(exact("Example.COM."), 1), (exact("a.example.com"), 2), (pattern("*.example.com"), 3)])
    assert found.find("example.com") == {1}
    assert found.find("a.example.com") == {2, 3}
    assert found.find("b.a.example.com") == frozenset()


def test_many_patterns_cost_little() -> None:
    """Names that differ only in the last label: the worst there is for a tree."""
    chance = random.Random(1)
    entries = [(pattern(f"x*{n}*y.example.com"), n) for n in range(10000)]
    found = Matcher(entries)
    for _ in range(20):
        name = f"x{chance.randrange(10**6)}y.example.com"
        assert found.find(name) == {n for n in range(10000) if str(n) in name[1:-13]}
