"""What pods were told becomes sets of selectors, and ends when its time and its connections are over."""

from typing import Any
from zlib import crc32

import pytest

from cirri.dnsproxy.facts import MOST, ROUND_S, Facts, Gone, Learnt, Owner, Pod, Record, Zombies
from cirri.layout.address import address16
from cirri.model.names import NameSettings
from cirri.proxies import NameSelector, NodeProxies, ProxyEndpoint

API, CDN, ORG = b"\3api\7example\3com\0", b"\3cdn\7example\3com\0", b"\7example\3org\0"
X, Y, Z = (address16(f"192.0.2.{n}") for n in (1, 2, 3))
COM = NameSelector(key="com", entry='{"matchPattern":"*.example.com"}')
ONE = NameSelector(key="api", entry='{"matchName":"api.example.com"}')
T = crc32(API) % ROUND_S
"""When rounds of the name begin."""
A, B = frozenset({"com"}), frozenset({"com", "api"})


def told(*names: NameSelector, **more: Any) -> NodeProxies:
    pods = (ProxyEndpoint(id=1, identity=100, pod="a"), ProxyEndpoint(id=2, identity=100, pod="b"))
    return NodeProxies(**{"revision": 1, "node": "n", "endpoints": pods, "names": {100: names}, **more})


def facts(*names: NameSelector, **more: Any) -> Facts:
    found = Facts()
    for record in found.adopt(told(*names, **more)):
        found.apply(record)
    return found


def learn(of: Facts, pod: int, name: bytes, *addresses: tuple[bytes, int], now: float = T) -> Record | None:
    record = of.learn(of.pods[pod], name, addresses, now)
    if record is not None:
        of.apply(record)
    return record


def settle(of: Facts) -> dict[tuple[int, bytes], frozenset[str]]:
    """Everything gets its number; returns what the kernel would hold."""
    kernel = {}
    for pod in of.pods.values():
        for address, held in list(pod.held.items()):
            if of.number(held.keys) is None:
                of.numbered(held.keys, 1000 + len(held.keys))
            if held.keys:
                kernel[pod.id, address] = held.keys
            of.settled(pod, address, of.number(held.keys) or 0)
        assert not pod.unsettled
    return kernel


def test_an_address_opens_for_the_pod_and_the_names_that_were_asked_for() -> None:
    of = facts(COM, ONE)
    learn(of, 1, API, (X, 30))
    learn(of, 1, CDN, (Y, 30), (X, 30))
    learn(of, 2, CDN, (X, 30))
    learn(of, 2, ORG, (Z, 30))
    assert settle(of) == {(1, X): B, (1, Y): A, (2, X): A}


def test_a_fact_is_known_until_it_would_last_longer() -> None:
    of = facts(COM)
    learn(of, 1, API, (X, 30), now=1000)
    pod = of.pods[1]
    assert not pod.knows(API, ((X, 30),), 1000), "the kernel has not been told"
    settle(of)
    end = pod.names[API][X]
    assert (end % ROUND_S, 1030 <= end < 1030 + ROUND_S) == (T, True)
    assert pod.knows(API, ((X, 30),), 1000)
    assert pod.knows(API, ((X, 30),), end - 30)
    assert not pod.knows(API, ((X, 30),), end - 29)
    assert not pod.knows(API, ((X, 30), (Y, 30)), 1000)
    assert not pod.knows(CDN, ((X, 30),), 1000)
    assert of.learn(pod, API, ((X, 30),), end - 30) is None


def test_new_selectors_are_asked_about_old_names() -> None:
    of = facts()
    learn(of, 1, API, (X, 30))
    assert settle(of) == {}
    of.adopt(told(COM))
    assert of.pods[1].unsettled == {X}
    assert settle(of) == {(1, X): A}
    of.adopt(told(ONE, COM))
    assert settle(of) == {(1, X): B}
    of.adopt(told())
    assert settle(of) == {}


def test_a_pod_that_is_another_one_knows_nothing() -> None:
    of = facts(COM)
    learn(of, 1, API, (X, 30))
    settle(of)
    other = (ProxyEndpoint(id=1, identity=100, pod="c"),)
    records = of.adopt(told(COM, endpoints=other))
    assert {(one.pod, one.who) for one in records if isinstance(one, Owner)} == {(1, "/c "), (2, "")}
    for record in records:
        of.apply(record)
    assert of.pods[1].unsettled == {X}, "the kernel still holds it"
    assert settle(of) == {}
    assert of.adopt(told(COM, endpoints=other)) == []


def test_identity_of_a_pod_changes() -> None:
    of = facts(COM)
    learn(of, 1, API, (X, 30))
    settle(of)
    of.adopt(told(COM, endpoints=(ProxyEndpoint(id=1, identity=200, pod="a"),), names={200: (ONE,)}))
    assert settle(of) == {(1, X): frozenset({"api"})}


def test_records_make_the_same_facts() -> None:
    of = facts(COM)
    learn(of, 1, API, (X, 30), (Y, 90))
    learn(of, 2, ORG, (Z, 30))
    of.apply(Gone(1, API, (X,)))
    again = Facts()
    for record in of.snapshot():
        again.apply(record)
    assert list(again.snapshot()) == list(of.snapshot())
    again.adopt(told(COM))
    assert settle(again) == settle(of) == {(1, Y): A}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (NameSettings(), {X: T + 60, Y: T + 120, Z: T + 60}),
        (NameSettings(min_ttl_s=100), {X: T + 120, Y: T + 120, Z: T + 120}),
        (NameSettings(per_name=2), {X: T, Y: T + 120, Z: T + 60}),
        (NameSettings(per_name=1), {X: T, Y: T + 120, Z: T}),
    ],
)
def test_limits(limits: NameSettings, expected: dict[bytes, int]) -> None:
    of = facts(COM)
    of.limits = limits
    learn(of, 1, API, (X, 30))
    learn(of, 1, API, (Y, 90))
    learn(of, 1, API, (Z, 30))
    assert of.pods[1].names[API] == expected


def test_a_pod_cannot_fill_the_memory() -> None:
    of = facts(COM)
    for number in range(MOST // 1000 + 10):
        addresses = [(address16(number.to_bytes(2, "big") + n.to_bytes(2, "big")), 30) for n in range(1000)]
        learn(of, 1, b"\3" + b"%03d" % number + b"\3org\0", *addresses)
    assert of.pods[1].pairs == MOST // 2
    assert learn(of, 1, API, (X, 30)) is not None, "names that policy speaks of have the other half"


class Clock:
    """A node on which clean-ups happen."""

    def __init__(self, of: Facts) -> None:
        self.of, self.zombies = of, Zombies()

    def round(self, now: float, *alive: tuple[int, bytes]) -> dict[tuple[int, bytes], frozenset[str]]:
        for record in self.zombies.round(self.of.expired(now), alive, self.of.limits.zombies):
            self.of.apply(record)
        return settle(self.of)


def test_what_is_over_goes_after_two_idle_rounds() -> None:
    of = facts(COM)
    learn(of, 1, API, (X, 30), (Y, 30))
    clock, both = Clock(of), {(1, X): A, (1, Y): A}
    assert clock.round(T + 59) == both
    assert clock.round(T + 61) == both
    assert clock.round(T + 121, (1, X)) == {(1, X): A}
    assert clock.round(T + 181) == {(1, X): A}, "once idle may be between two connections"
    assert clock.round(T + 241, (1, X)) == {(1, X): A}
    assert clock.round(T + 301) == {(1, X): A}
    assert clock.round(T + 361) == {}
    assert not of.pods[1].names
    assert not of.pods[1].held


def test_asked_again_lives_again() -> None:
    of = facts(COM)
    learn(of, 1, API, (X, 30))
    clock = Clock(of)
    clock.round(T + 61)
    learn(of, 1, API, (X, 30), now=T + 100)
    assert clock.round(T + 121) == {(1, X): A}
    assert clock.round(T + 179) == {(1, X): A}


def test_grace_period() -> None:
    of = facts(COM)
    of.limits = NameSettings(grace_s=300)
    learn(of, 1, API, (X, 30))
    assert of.expired(T + 359) == {}
    assert of.expired(T + 360) == {(1, X): [(T + 60, API)]}


def test_one_of_two_names_is_over() -> None:
    of = facts(COM, ONE)
    learn(of, 1, API, (X, 30))
    learn(of, 1, CDN, (X, 300))
    clock = Clock(of)
    clock.round(T + 61)
    assert clock.round(T + 121) == {(1, X): A}


def test_too_many_zombies() -> None:
    of = facts(COM)
    of.limits = NameSettings(zombies=2)
    for ttl, address in ((30, X), (100, Y), (200, Z)):
        learn(of, 1, API, (address, ttl))
    alive = ((1, X), (1, Y), (1, Z))
    assert Clock(of).round(T + 1000, *alive) == {(1, Y): A, (1, Z): A}


def test_settled_of_an_unknown_address() -> None:
    pod = Pod(1)
    pod.unsettled.add(X)
    Facts().settled(pod, X, 0)
    assert not pod.unsettled


def test_learnt_is_plain() -> None:
    of = facts()
    assert learn(of, 1, API, (X, 30)) == Learnt(1, API, ((X, T + 60),))


def test_rounds_of_names_begin_one_after_another() -> None:
    of = facts(COM)
    ends = set()
    for number in range(1000):
        record = learn(of, 1, b"\3%03d\7example\3com\0" % number, (X, 30), now=0)
        assert isinstance(record, Learnt)
        ends |= {until for _, until in record.addresses}
    assert ends == set(range(30, 30 + ROUND_S))


def test_doubt_is_told_before_the_kernel_changes() -> None:
    """Of a name whose address gets another set, has less time, or goes."""
    of = facts(COM, ONE)
    doubted: list[tuple[int, bytes]] = []
    of.doubt = lambda pod, name: doubted.append((pod, name))
    learn(of, 1, CDN, (X, 30))
    learn(of, 2, CDN, (X, 30))
    settle(of)
    doubted.clear()
    learn(of, 1, CDN, (X, 90))
    learn(of, 1, CDN, (Y, 90))
    settle(of)
    assert set(doubted) <= {(1, CDN)}
    doubted.clear()
    learn(of, 1, API, (X, 30))
    assert set(doubted) == {(1, CDN), (1, API)}, "the address is in another set now"
    settle(of)
    doubted.clear()
    of.apply(Learnt(1, CDN, ((X, 5),)))
    assert doubted == [(1, CDN)]
    doubted.clear()
    of.apply(Gone(2, CDN, (X,)))
    assert set(doubted) == {(2, CDN)}
    doubted.clear()
    of.apply(Owner(1, "another"))
    assert set(doubted) == {(1, CDN), (1, API)}


@pytest.mark.parametrize(
    ("later", "number", "doubted"),
    [
        ({7: ("com",), 9: ("x",)}, 7, False),  # other sets are nothing to it
        ({8: ("com",)}, 8, True),  # it was given another number
        ({7: ("x",)}, None, True),  # its number was given to another set
        ({}, None, True),
    ],
)
def test_numbers_of_sets_change(
    later: dict[int, tuple[str, ...]], number: int | None, *, doubted: bool
) -> None:
    of = facts(COM, sets={7: ("com",)})
    learn(of, 1, API, (X, 30))
    of.settled(of.pods[1], X, 7)
    of.adopt(told(COM, sets=later))
    assert of.number(A) == number
    assert of.pods[1].unsettled == ({X} if doubted else set())


@pytest.mark.parametrize(("later", "number"), [({7: ("com",)}, 7), ({8: ("com",)}, 8), ({}, None)])
def test_a_number_that_was_answered_holds_until_all_is_told(
    later: dict[int, tuple[str, ...]], number: int | None
) -> None:
    of = facts(COM)
    learn(of, 1, API, (X, 30))
    of.numbered(A, 7)
    of.settled(of.pods[1], X, 7)
    assert (of.number(A), of.pods[1].unsettled) == (7, set())
    of.adopt(told(COM, sets=later))
    assert of.number(A) == number
    assert of.pods[1].unsettled == (set() if number == 7 else {X})
