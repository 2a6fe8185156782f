"""Kernel entries: blocks of ports, what a deny takes away, and changes without a mixture."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from pyroaring import BitMap

from cirri.engine import EGRESS, INGRESS, EntryKey, EntryValue, entries, plan, verdict
from cirri.engine.entries import ANYBODY, prefixes
from cirri.engine.verdict import match_class
from cirri.model import Direction, Rule, SubjectPolicy
from cirri.model.policy import Auth

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


def http(selector: str, port: int, end_port: int = 0, *, rule: int = 5, priority: int = 27) -> Rule:
    one = allow(selector, 6, port, end_port, rule=rule)
    return replace(one, redirect="http", priority=priority)


def auth(rule: Rule, mode: Auth) -> Rule:
    return replace(rule, auth=mode)


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


PROXY = EntryValue(5, priority=27, redirect="http")
AUTH = EntryValue(1, auth=True)

# Section 15.1 with redirects, section 20
PROXIES: dict[str, tuple[SubjectPolicy, dict[EntryKey, EntryValue]]] = {
    "redirect": (policy(http("", 80)), {key(ANYBODY, 6, 80, 16): PROXY}),
    "denied-before-the-proxy": (
        policy(http("", 80), deny("", 6, 80)),
        {key(ANYBODY, 6, 80, 16): EntryValue(9, deny=True)},
    ),
    "two-selectors-one-peer-the-stronger-redirect": (
        policy(http("a", 80), http("b", 80, rule=4, priority=7), allow("b", 6, 80, rule=1)),
        {
            key(300, 6, 80, 16): PROXY,
            key(301, 6, 80, 16): PROXY,
            key(302, 6, 80, 16): EntryValue(4, priority=7, redirect="http"),
        },
    ),
    "a-redirect-removes-what-it-covers-of-the-same-peer": (
        policy(http("", 80, 83), allow("", 6, 81)),
        {key(ANYBODY, 6, 80, 14): PROXY},
    ),
    "and-of-others-if-it-is-for-anybody": (policy(http("", 80), allow("a", 6, 80)), {
        key(ANYBODY, 6, 80, 16): PROXY}),
    "not-a-stronger-one": (
        policy(http("", 80, 83), http("", 81, rule=6, priority=28)),
        {
            key(ANYBODY, 6, 80, 14): PROXY,
            key(ANYBODY, 6, 81, 16): EntryValue(6, priority=28, redirect="http"),
        },
    ),
    "not-what-is-broader": (
        policy(http("", 80), allow("", 6)),
        {key(ANYBODY, 6, 80, 16): PROXY, key(ANYBODY, 6): EntryValue(1)},
    ),
    "not-what-another-peer-may": (
        policy(http("a", 80), allow("", 6, 80)),
        {key(ANYBODY, 6, 80, 16): EntryValue(1), key(300, 6, 80, 16): PROXY, key(301, 6, 80, 16): PROXY},
    ),
    "not-enforced-keeps-redirects": (policy(http("", 80), enforced=False), {key(ANYBODY, 6, 80, 16): PROXY}),
    "not-enforced-keeps-authentication": (
        policy(auth(allow("", 6, 80), "required"), enforced=False),
        {key(ANYBODY, 6, 80, 16): AUTH},
    ),
    "auth": (policy(auth(allow("", 6, 80), "required")), {key(ANYBODY, 6, 80, 16): AUTH}),
    "auth-always-fails": (policy(auth(allow(""), "test-always-fail")), {key(ANYBODY): AUTH}),
    "auth-disabled": (policy(auth(allow("", 6, 80), "disabled")), {key(ANYBODY, 6, 80, 16): EntryValue(1)}),
    "auth-is-inherited-from-the-next-broader": (
        policy(auth(allow("", rule=2), "required"), allow("", 6), http("", 80)),
        {
            key(ANYBODY): EntryValue(2, auth=True),
            key(ANYBODY, 6): AUTH,
            key(ANYBODY, 6, 80, 16): PROXY._replace(auth=True),
        },
    ),
    "disabled-ends-the-inheritance": (
        policy(auth(allow("", rule=2), "required"), auth(allow("", 6), "disabled"), http("", 80)),
        {
            key(ANYBODY): EntryValue(2, auth=True),
            key(ANYBODY, 6): EntryValue(1),
            key(ANYBODY, 6, 80, 16): PROXY,
        },
    ),
    "of-two-that-say-it-the-stricter": (
        policy(auth(allow("a"), "disabled"), auth(allow("b", rule=2), "required")),
        {key(300): EntryValue(1), key(301): AUTH, key(302): EntryValue(2, auth=True)},
    ),
    "what-says-it-beats-what-does-not": (
        policy(auth(allow("a", 6, 80), "required"), http("b", 80)),
        {
            key(300, 6, 80, 16): AUTH,
            key(301, 6, 80, 16): PROXY._replace(auth=True),
            key(302, 6, 80, 16): PROXY,
        },
    ),
    "a-peer-inherits-from-anybody": (
        policy(auth(allow("", rule=2), "required"), allow("a", 6, 80)),
        {
            key(ANYBODY): EntryValue(2, auth=True),
            **{
                key(peer, *rest): value
                for peer in (300, 301)
                for rest, value in (((), EntryValue(2, auth=True)), ((6, 80, 16), AUTH))
            },
        },
    ),
    "anybody-inherits-from-the-peer": (
        policy(auth(allow("a", rule=2), "required"), allow("", 6, 80)),
        {
            key(ANYBODY, 6, 80, 16): EntryValue(1),
            **{
                key(peer, *rest): value
                for peer in (300, 301)
                for rest, value in (((), EntryValue(2, auth=True)), ((6, 80, 16), AUTH))
            },
        },
    ),
    "a-peer-that-says-disabled-inherits-nothing": (
        policy(auth(allow("", rule=2), "required"), auth(allow("a", 6, 80), "disabled")),
        {
            key(ANYBODY): EntryValue(2, auth=True),
            **{
                key(peer, *rest): value
                for peer in (300, 301)
                for rest, value in (((), EntryValue(2, auth=True)), ((6, 80, 16), EntryValue(1)))
            },
        },
    ),
    "a-hole-stays-a-hole": (
        policy(auth(allow("", rule=2), "required"), allow("a", 6), deny("a", 6, 80)),
        {
            key(ANYBODY): EntryValue(2, auth=True),
            **{
                key(peer, *rest): value
                for peer in (300, 301)
                for rest, value in (
                    ((), EntryValue(2, auth=True)),
                    ((6,), AUTH),
                    ((6, 80, 16), EntryValue(9, deny=True)),
                )
            },
        },
    ),
    "who-has-only-denies-needs-nothing-more": (
        policy(auth(allow("", rule=2), "required"), deny("a", 6, 80)),
        {
            key(ANYBODY): EntryValue(2, auth=True),
            key(300, 6, 80, 16): EntryValue(9, deny=True),
            key(301, 6, 80, 16): EntryValue(9, deny=True),
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize(("subject", "expected"), PROXIES.values(), ids=PROXIES.keys())
def test_proxies_and_authentication(subject: SubjectPolicy, expected: dict[EntryKey, EntryValue]) -> None:
    assert entries(subject, SETS) == expected


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


PORTS = [(0, 0, 0), (6, 0, 0), (6, 80, 0), (6, 80, 83), (17, 53, 0)]
PRIORITY = {0: "", 7: "dns", 27: "http", 100: "listener"}
MODES = ["", "", "disabled", "required"]


def rule(
    denied: bool, selector: str, ports: tuple[int, int, int], cookie: int, priority: int, mode: Auth
) -> Rule:
    protocol, port, end_port = ports
    plain = Rule(selector=selector, protocol=protocol, port=port, end_port=end_port, origins=(cookie,))
    if denied:
        return replace(plain, deny=True)
    if not port:
        return replace(plain, auth=mode)
    return replace(plain, priority=priority, redirect=PRIORITY[priority], auth=mode)


RULE = st.builds(
    rule,
    st.sampled_from([False, False, False, True]),
    st.sampled_from(["", "a", "b"]),
    st.sampled_from(PORTS),
    st.integers(1, 3),
    st.sampled_from([0, 0, 7, 27, 100]),
    st.sampled_from(MODES),
)
POLICY = st.lists(RULE, max_size=6).map(lambda rules: policy(*rules))
PACKETS = [
    (peer, protocol, port)
    for peer in (0, 300, 301, 302)
    for protocol, port in ((6, 80), (6, 82), (6, 9), (17, 53), (1, 8))
]


def verdicts(found: Any) -> list[tuple[bool, str, str]]:
    said = (verdict(found, peer, INGRESS, protocol, port, proxies=True) for peer, protocol, port in PACKETS)
    return [(one.allowed, one.cause, one.redirect) for one in said]


def closeness(one: Rule, protocol: int, port: int) -> int | None:
    """How closely *one* covers a packet: 0 any protocol, 8 one, more for smaller blocks; None: not at all."""
    if not one.protocol:
        return 0
    if one.protocol != protocol:
        return None
    if not one.port:
        return 8
    for first, bits in prefixes(one.port, max(one.port, one.end_port)):
        if first <= port < first + (1 << (16 - bits)):
            return 8 + bits
    return None


@given(POLICY)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_covering_deny_else_the_strongest_redirect_else_the_most_specific(subject: SubjectPolicy) -> None:
    """The sentence of section 15.2 and the table of entries say the same of every packet."""
    found = entries(subject, SETS)
    for peer, protocol, port in PACKETS:
        got = verdict(found, peer, INGRESS, protocol, port, proxies=True)
        hits = [
            (one.deny, one.priority, close, bool(one.selector), -one.origins[0], one.redirect)
            for one in subject.ingress.rules
            if (not one.selector or peer in SETS[one.selector])
            and (close := closeness(one, protocol, port)) is not None
        ]
        if not hits:
            assert got.cause == "default-deny"
            continue
        denied, *_, cookie, redirect = max(hits)
        if denied:
            assert got.cause == "deny-rule"
        else:
            assert got.cause in {"allow-rule", "auth-required"}
            assert got.rule == -cookie
            assert not got.allowed or got.redirect == redirect


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


def test_a_proxy_by_another_name_is_no_change() -> None:
    """The kernel does not store the name."""
    peer = key(300)
    assert plan({peer: PROXY._replace(redirect="")}, {peer: PROXY}).put == {}
    assert plan({peer: EntryValue(5)}, {peer: PROXY}).put == {peer: PROXY}
    assert plan({peer: EntryValue(1)}, {peer: AUTH}).put == {peer: AUTH}


def test_directions_are_apart() -> None:
    found = entries(policy(allow("a")), SETS)
    assert verdict(found, 300, INGRESS, 6, 80).allowed
    assert not verdict(found, 300, EGRESS, 6, 80).allowed
