"""The reflector against a server in memory: whatever goes wrong, it ends at what the server has."""

import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import pytest

from cirri.kubernetes.bridge import reflector as module
from cirri.kubernetes.bridge.reflector import Delta, Item, Place, Reflector

Told = dict[Place, int]


def item(name: str, version: int) -> Item[int]:
    return Item(Place("", name), version, version)


def fold(told: Told, deltas: list[Delta[int]]) -> None:
    for place, each in deltas:
        if each is None:
            del told[place]  # nothing is told as gone that was not told as there
        else:
            assert each.version > told.get(place, -1)
            told[place] = each.version


def listed(
    *items: Item[int], version: str = "10", known: tuple[str, ...] = ()
) -> tuple[Reflector[int], Told]:
    """A reflector that has listed *items*, and what it told."""
    found: Reflector[int] = Reflector([Place("", name) for name in known], chance=lambda: 0.0)
    told: Told = {Place("", name): 0 for name in known}
    fold(told, found.page(items, version, ""))
    return found, told


def names(told: Told) -> dict[str, int]:
    return {place.name: version for place, version in told.items()}


Step = Callable[[Reflector[int]], list[Delta[int]]]


def quiet(step: Callable[[Reflector[int]], None]) -> Step:
    """A step that tells nothing."""

    def stepped(reflector: Reflector[int]) -> list[Delta[int]]:
        step(reflector)
        return []

    return stepped


class Case(NamedTuple):
    """After a list of ``a`` (5) and ``b`` (7) at 10, *steps* lead to *expected*."""

    id: str
    steps: tuple[Step, ...]
    expected: dict[str, int]
    resumes: str = "10"
    """Version that is watched from next; empty: it lists."""


CASES = [
    Case("nothing", (), {"a": 5, "b": 7}),
    Case("a change", (lambda r: r.changed(item("a", 11)),), {"a": 11, "b": 7}, "11"),
    Case(
        "twice",
        (lambda r: r.changed(item("a", 11)), lambda r: r.changed(item("a", 11))),
        {"a": 11, "b": 7},
        "11",
    ),
    Case(
        "late",
        (lambda r: r.changed(item("a", 12)), lambda r: r.changed(item("a", 11))),
        {"a": 12, "b": 7},
        "12",
    ),
    Case("older than the list", (lambda r: r.changed(item("c", 9)),), {"a": 5, "b": 7}),
    Case("gone", (lambda r: r.deleted(item("a", 11)),), {"b": 7}, "11"),
    Case(
        "gone twice", (lambda r: r.deleted(item("a", 11)), lambda r: r.deleted(item("a", 11))), {"b": 7}, "11"
    ),
    Case(
        "a change after the end, late",
        (lambda r: r.deleted(item("a", 12)), lambda r: r.changed(item("a", 11))),
        {"b": 7},
        "12",
    ),
    Case(
        "an end, late, of what is there again",
        (lambda r: r.changed(item("a", 13)), lambda r: r.deleted(item("a", 12))),
        {"a": 13, "b": 7},
        "13",
    ),
    Case("bookmark", (quiet(lambda r: r.bookmark("40")),), {"a": 5, "b": 7}, "40"),
    Case("410", (quiet(lambda r: r.refused(410)),), {"a": 5, "b": 7}, ""),
    Case("500", (quiet(lambda r: r.refused(500)),), {"a": 5, "b": 7}),
    Case("cut", (quiet(lambda r: r.ended(100)),), {"a": 5, "b": 7}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_events(case: Case) -> None:
    reflector, told = listed(item("a", 5), item("b", 7))
    for step in case.steps:
        fold(told, step(reflector))
    assert names(told) == case.expected
    assert reflector.ask().parameters.get("resourceVersion", "") == case.resumes


def test_the_list_after_410_tells_what_is_gone() -> None:
    reflector, told = listed(item("a", 5), item("b", 7))
    reflector.refused(410)
    fold(told, reflector.page([item("b", 7), item("c", 20)], "30", ""))
    assert names(told) == {"b": 7, "c": 20}


def test_what_an_earlier_life_told_goes_with_the_first_list() -> None:
    _, told = listed(item("a", 5), known=("a", "z"))
    assert names(told) == {"a": 5}


def test_an_empty_list_is_not_believed_at_once() -> None:
    reflector, told = listed(item("a", 5))
    reflector.refused(410)
    assert reflector.page([], "30", "") == []
    ask = reflector.ask()
    assert (ask.watch, ask.pause_s) == (False, module.DOUBT_S)
    fold(told, reflector.page([], "31", ""))
    assert told == {}


def test_an_empty_list_that_was_a_mistake_changes_nothing() -> None:
    reflector, told = listed(item("a", 5))
    reflector.refused(410)
    assert reflector.page([], "30", "") == []
    fold(told, reflector.page([item("a", 5)], "31", ""))
    assert names(told) == {"a": 5}
    reflector.refused(410)
    assert reflector.page([], "40", "") == [], "doubts again"


@pytest.mark.parametrize("first", [[item("a", 5)], []], ids=["on a later page", "on the first"])
def test_an_empty_page_is_not_the_end_at_once(first: list[Item[int]]) -> None:
    """The rest of the list is not gone, and nothing is watched from a version that was not listed."""
    reflector, told = listed(item("a", 5), item("b", 7))
    reflector.refused(410)
    fold(told, reflector.page(first, "30", "next" if first else ""))
    if first:
        assert reflector.page([], "31", "") == []
    ask = reflector.ask()
    assert (ask.watch, ask.parameters.get("continue"), ask.pause_s) == (False, None, module.DOUBT_S)
    fold(told, reflector.page([item("a", 5)], "32", "next"))
    fold(told, reflector.page([item("b", 7)], "32", ""))
    assert names(told) == {"a": 5, "b": 7}
    assert reflector.ask().parameters["resourceVersion"] == "32"


def test_a_repeated_empty_page_is_the_end() -> None:
    """With a selector a server may have nothing for the last page."""
    reflector, told = listed(item("a", 5), item("b", 7))
    reflector.refused(410)
    for _ in range(2):
        fold(told, reflector.page([item("a", 5)], "30", "next"))
        fold(told, reflector.page([], "30", ""))
    assert names(told) == {"a": 5}


def test_a_server_that_was_restored_is_believed() -> None:
    """Its versions are lower than those that were seen."""
    reflector, told = listed(item("a", 50), item("b", 60), version="100")
    reflector.refused(410)
    told = dict.fromkeys(told, 0)
    fold(told, reflector.page([item("a", 20)], "30", ""))
    assert names(told) == {"a": 20}
    assert reflector.ask().parameters["resourceVersion"] == "30"


def test_pages() -> None:
    reflector: Reflector[int] = Reflector(chance=lambda: 0.0, page=1)
    assert reflector.ask().parameters == {"limit": "1"}
    told: Told = {}
    fold(told, reflector.page([item("a", 5)], "10", "next"))
    assert reflector.ask().parameters == {"limit": "1", "continue": "next"}
    assert not reflector.synced
    fold(told, reflector.page([item("b", 6)], "10", ""))
    assert reflector.synced
    assert names(told) == {"a": 5, "b": 6}


def test_pages_that_expire_become_one() -> None:
    reflector: Reflector[int] = Reflector(chance=lambda: 0.0, page=1)
    reflector.page([item("a", 5)], "10", "next")
    reflector.refused(410)
    assert reflector.ask().parameters == {}


def test_pauses_grow_and_end() -> None:
    reflector, _ = listed(item("a", 5))
    pauses = []
    for _ in range(12):
        reflector.refused(500)
        pauses.append(reflector.ask().pause_s)
    assert pauses == sorted(pauses)
    assert pauses[0] == module.FIRST_S / 2
    assert pauses[-1] == module.LONGEST_S / 2
    reflector.page([item("a", 5)], "11", "")
    reflector.changed(item("a", 12))
    reflector.refused(500)
    assert reflector.ask().pause_s == module.FIRST_S / 2


def test_retry_after_is_honoured() -> None:
    reflector, _ = listed(item("a", 5))
    reflector.refused(429, 7.0)
    assert reflector.ask().pause_s == 7.0


def test_a_server_that_always_says_410_is_left_alone() -> None:
    reflector, _ = listed(item("a", 5))
    pauses = []
    for _ in range(10):
        reflector.refused(410)
        pauses.append(reflector.ask().pause_s)
        reflector.page([item("a", 5)], "11", "")
    assert pauses[0] == 0.0
    assert pauses[-1] > 5


def test_a_watch_that_always_ends_is_left_alone() -> None:
    reflector, _ = listed(item("a", 5))
    total = 0.0
    for _ in range(20):
        reflector.ended(0.01)
        total += reflector.ask().pause_s
    assert total > 60


def test_what_is_remembered_is_bounded() -> None:
    reflector, _ = listed()
    for i in range(3 * module.REMEMBERED):
        reflector.changed(item(str(i), 100 + 2 * i))
        reflector.deleted(item(str(i), 101 + 2 * i))
    assert len(reflector) == 0
    assert len(reflector._gone) == module.REMEMBERED
    reflector.bookmark(str(10**6))
    assert reflector._gone == {}


class Memory:
    """A server as simple as one can be: objects, a log of what was changed, and a window of it."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.version = 1
        self.objects: dict[str, int] = {}
        self.log: deque[tuple[str, str, int]] = deque(maxlen=12)

    def step(self) -> None:
        name = f"o{self.chance.randrange(8)}"
        self.version += self.chance.randint(1, 3)
        if name in self.objects and self.chance.random() < 0.4:
            del self.objects[name]
            self.log.append(("DELETED", name, self.version))
        else:
            self.objects[name] = self.version
            self.log.append(("MODIFIED", name, self.version))


def drive(chance: random.Random) -> None:
    """One life: a random history, answered with random faults, then in peace."""
    server, told = Memory(chance), Told()
    reflector: Reflector[int] = Reflector(chance=chance.random, page=3)
    snapshot: list[Item[int]] = []
    at, lied = 0, False
    for turn in range(30):
        for _ in range(chance.randrange(5) if turn < 20 else 0):
            server.step()
        ask, fault = reflector.ask(), chance.random() if turn < 20 else 1.0
        if fault < 0.15:
            reflector.refused(chance.choice([410, 429, 500, 503]), chance.choice([0, 2]))
        elif fault < 0.2:
            reflector.failed()
        elif not ask.watch:
            if "continue" not in ask.parameters:
                snapshot, at = [item(n, v) for n, v in sorted(server.objects.items())], server.version
            start = int(ask.parameters.get("continue", 0))
            end = start + int(ask.parameters.get("limit", 10**6))
            empty = fault < 0.25 and not lied and bool(told)
            page = [] if empty else snapshot[start:end]
            token = str(end) if end < len(snapshot) and not empty else ""
            lied = empty or (lied and bool(token))
            fold(told, reflector.page(page, str(server.version if empty else at), token))
        else:
            since = int(ask.parameters["resourceVersion"])
            if server.log and since < server.log[0][2] and len(server.log) == server.log.maxlen:
                reflector.refused(410)
                continue
            events = [e for e in server.log if e[2] > since]
            if fault < 0.4 and events:
                events = events[: chance.randrange(len(events))]  # cut
            for i in range(len(events) - 1):
                if chance.random() < 0.1:
                    events[i : i + 2] = events[i + 1], events[i]
                elif chance.random() < 0.1:
                    events.insert(i, events[i])
            for kind, name, version in events:
                each = item(name, version)
                fold(told, reflector.deleted(each) if kind == "DELETED" else reflector.changed(each))
            if chance.random() < 0.3 and fault >= 0.4:
                reflector.bookmark(str(server.version))
            reflector.ended(2.0)
    assert names(told) == server.objects


def test_ten_thousand_lives() -> None:
    for seed in range(10_000):
        try:
            drive(random.Random(seed))
        except AssertionError:
            print("seed", seed)
            raise
