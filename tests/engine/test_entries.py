"""Kernel entries: blocks of ports, what a deny takes away, and changes without a mixture."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from cirri.engine import EGRESS, INGRESS, EntryKey, EntryValue, entries, plan, verdict
from cirri.engine.entries import ANYBODY, prefixes
from cirri.engine.verdict import match_class
from cirri.model import Direction, Rule, SubjectPolicy

SETS = {"a": BitMap([300, 301]), "b": BitMap([301, 302])}


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (80, 80, [(80, 16)]),
        (0, 65535, [(0, 0)]),
        (0, 1023, [(0, 6)]),
        (8000, 8010, [(8000, 13), (8008, 15), (8010, 16)]),
        (1, 3, [(1, 16), (2, 15)]),
        (65535, 65535, [(65535, 16)]),
    ],
)
def test_prefixes(first: int, last: int, expected: list[tuple[int, int]]) -> None:
    assert prefixes(first, last) == expected


@given(st.integers(0, 65535), st.integers(0, 65535))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_prefixes_cover_the_range_exactly(one: int, other: int) -> None:
    first, last = sorted((one, other))
    blocks = [range(port, port + (1 << (16 - bits))) for port, bits in prefixes(first, last)]
    assert all(block.start % len(block) == 0 for block in blocks)
    assert blocks[0].start == first
    assert blocks[-1].stop == last + 1
    assert all(left.stop == right.start for left, right in pairwise(blocks))
    assert len(blocks) <= 30


def policy(*rules: Rule, enforced: bool = True) -> SubjectPolicy:
    return SubjectPolicy(identity=400, ingress=Direction(enforced=enforced, rules=rules))


def allow(selector: str, protocol: int = 0, port: int = 0, end_port: int = 0, *, rule: int = 1) -> Rule:
    return Rule(selector=selector, protocol=protocol, port=port, end_port=end_port, origins=(rule,))


def deny(selector: str, protocol: int = 0, port: int = 0, *, rule: int = 9) -> Rule:
    return Rule(selector=selector, protocol=protocol, port=port, deny=True, origins=(rule,))


def key(identity: int, *rest: int) -> EntryKey:
    return EntryKey(identity, INGRESS, *rest)


CASES: dict[str, tuple[SubjectPolicy, dict[EntryKey, tuple[int, bool]]]] = {
    "l3": (policy(allow("a")), {key(300): (1, False), key(301): (1, False)}),
    "anybody-on-a-port": (policy(allow("", 6, 80)), {key(ANYBODY, 6, 80, 16): (1, False)}),
    "protocol": (policy(allow("", 6)), {key(ANYBODY, 6): (1, False)}),
    "icmp-type-0": (policy(allow("", 1, 0, -1)), {key(ANYBODY, 1, 0, 16): (1, False)}),
    "range": (policy(allow("", 6, 80, 81)), {key(ANYBODY, 6, 80, 15): (1, False)}),
    "same-key-denied": (policy(allow("", 6, 80), deny("", 6, 80)), {key(ANYBODY, 6, 80, 16): (9, True)}),
    "broad-deny-removes-narrow-allow": (
        policy(allow("a", 6, 80), deny("a", 6)),
        {key(300, 6): (9, True), key(301, 6): (9, True)},
    ),
    "deny-for-anybody-removes-allow-of-a-peer": (
        policy(allow("a", 6, 80), deny("", 6)),
        {key(ANYBODY, 6): (9, True)},
    ),
    "deny-for-anybody-covers-deny-of-a-peer": (
        policy(deny("a", 6, 80), deny("", rule=8)),
        {key(ANYBODY): (8, True)},
    ),
    "narrow-deny-cuts-a-hole": (
        policy(allow("b"), deny("a", 6, 80)),
        {
            key(300, 6, 80, 16): (9, True),
            key(301): (1, False),
            key(301, 6, 80, 16): (9, True),
            key(302): (1, False),
        },
    ),
    "not-enforced-keeps-denies": (
        policy(allow("a"), deny("b", 6, 80), enforced=False),
        {key(301, 6, 80, 16): (9, True), key(302, 6, 80, 16): (9, True)},
    ),
    "two-rules-one-key": (policy(allow("a", rule=5), allow("b", rule=4)), {
        key(300): (5, False), key(301): (4, False), key(302): (4, False)}),
}  # fmt: skip


@pytest.mark.parametrize(("subject", "expected"), CASES.values(), ids=CASES.keys())
def test_entries(subject: SubjectPolicy, expected: dict[EntryKey, tuple[int, bool]]) -> None:
    assert entries(subject, SETS) == {k: EntryValue(*value) for k, value in expected.items()}


def test_a_missing_selector_is_an_error() -> None:
    with pytest.raises(KeyError):
        entries(policy(allow("zzz")), SETS)


def test_only_one_peer() -> None:
    subject = policy(allow("a"), allow("", 6, 80))
    assert entries(subject, SETS, only=[301]) == {key(301): EntryValue(1)}
    assert entries(subject, SETS, only=[ANYBODY]) == {key(ANYBODY, 6, 80, 16): EntryValue(1)}


@pytest.mark.parametrize(
    ("one", "number"),
    [
        (key(0), 4),
        (key(9), 1),
        (key(0, 6), 6),
        (key(9, 6), 5),
        (key(0, 6, 80, 16), 3),
        (key(9, 6, 80, 12), 2),
    ],
)
def test_match_class(one: EntryKey, number: int) -> None:
    assert match_class(one) == number


RULE = st.builds(
    lambda deny, selector, ports, rule: Rule(
        selector=selector, deny=deny, origins=(rule,), protocol=ports[0], port=ports[1], end_port=ports[2]
    ),
    st.booleans(),
    st.sampled_from(["", "a", "b"]),
    st.sampled_from([(0, 0, 0), (6, 0, 0), (6, 80, 0), (6, 80, 83), (17, 53, 0)]),
    st.integers(1, 3),
)
POLICY = st.lists(RULE, max_size=5).map(lambda rules: policy(*rules))
PACKETS = [
    (peer, protocol, port)
    for peer in (0, 300, 301, 302)
    for protocol, port in ((6, 80), (6, 82), (6, 9), (17, 53), (1, 8))
]


def verdicts(found: Any) -> list[bool]:
    return [verdict(found, peer, INGRESS, protocol, port).allowed for peer, protocol, port in PACKETS]


@given(POLICY, POLICY)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_in_place_no_packet_meets_a_mixture(before: SubjectPolicy, after: SubjectPolicy) -> None:
    """After each single step of a change in place, every packet gets its old or its new verdict."""
    old, new = entries(before, SETS), entries(after, SETS)
    change = plan(old, new)
    now = dict(old)
    allowed = list(zip(verdicts(old), verdicts(new), strict=True))
    for step, value in change.put.items():
        now[step] = value
        if change.in_place:
            assert all(got in pair for got, pair in zip(verdicts(now), allowed, strict=True)), step
    for step in change.drop:
        del now[step]
        if change.in_place:
            assert all(got in pair for got, pair in zip(verdicts(now), allowed, strict=True)), step
    assert now == new


def test_plan() -> None:
    anybody, peer = key(ANYBODY, 6, 80, 16), key(300)
    assert plan({}, {peer: EntryValue(1)}).in_place
    assert plan({anybody: EntryValue(1)}, {}).in_place
    assert not plan({anybody: EntryValue(1)}, {peer: EntryValue(1)}).in_place
    again = plan({anybody: EntryValue(1), peer: EntryValue(1)}, {anybody: EntryValue(2)})
    assert again.in_place, "another rule says the same for anybody"
    assert again.put == {anybody: EntryValue(2)}
    assert again.drop == (peer,)
    assert plan({peer: EntryValue(1)}, {peer: EntryValue(1)}) == plan({}, {})


def test_what_covers_less_is_dropped_last() -> None:
    """An allow with a hole goes: the hole must not be filled first."""
    wide, hole = key(300), key(300, 6, 80, 16)
    change = plan({hole: EntryValue(9, deny=True), wide: EntryValue(1)}, {})
    assert (change.in_place, change.drop) == (True, (wide, hole))


def test_what_covers_less_is_put_first() -> None:
    wide, hole = key(300), key(300, 6, 80, 16)
    change = plan({}, {wide: EntryValue(1), hole: EntryValue(9, deny=True)})
    assert (change.in_place, list(change.put)) == (True, [hole, wide])


def test_directions_are_apart() -> None:
    found = entries(policy(allow("a")), SETS)
    assert verdict(found, 300, INGRESS, 6, 80).allowed
    assert not verdict(found, 300, EGRESS, 6, 80).allowed
