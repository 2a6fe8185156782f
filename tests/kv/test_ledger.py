"""The owner's books: what is written is what differs, whatever the store forgets in between."""

from __future__ import annotations

import random

import pytest

from cirri.kv.ledger import Ledger, Stored


def known(**stored: bytes) -> Ledger:
    """A ledger that has read a store."""
    ledger = Ledger()
    ledger.observe({key: Stored(data, 1) for key, data in stored.items()}, {}, 1)
    return ledger


def test_unchanged_is_not_written() -> None:
    ledger = known(a=b"1")
    assert ledger.want("a", b"1") == 1
    assert ledger.want("gone", None) == 0
    assert ledger.due(10) == []


def test_before_the_store_was_read_everything_waits() -> None:
    ledger = Ledger()
    assert ledger.want("a", b"1") is None
    assert ledger.want("b", None) is None
    lost = ledger.observe({"a": Stored(b"1", 7), "c": Stored(b"3", 8)}, {}, 8)
    assert not lost
    assert ledger.due(10) == []
    assert ledger.wanted == {"a": b"1", "c": b"3"}  # what was found is taken over


def test_newest_is_written_after_the_one_on_its_way() -> None:
    ledger = known()
    ledger.want("a", b"1")
    assert ledger.due(10) == ["a"]
    assert ledger.send("a") == b"1"
    assert ledger.want("a", b"2") is None
    assert ledger.due(10) == []
    assert not ledger.arrived("a", 2)
    assert ledger.due(10) == ["a"]
    assert ledger.send("a") == b"2"
    assert ledger.arrived("a", 3)
    assert ledger.due(10) == []
    assert ledger.stored == {"a": Stored(b"2", 3)}


def test_back_to_the_stored_value_while_another_is_on_its_way() -> None:
    ledger = known(a=b"1")
    ledger.want("a", b"2")
    ledger.send("a")
    assert ledger.want("a", b"1") is None  # the store will hold 2 in a moment
    assert not ledger.arrived("a", 2)
    assert ledger.send("a") == b"1"
    assert ledger.arrived("a", 3)


def test_whole_state_puts_before_it_drops() -> None:
    ledger = known(a=b"1", b=b"2", c=b"3")
    ledger.want_all({"b": b"2", "c": b"4", "d": b"5"})
    assert ledger.due(10) == ["c", "d", "a"]
    assert ledger.due(2) == ["c", "d"]


def test_marker_is_owed_what_was_dirty_when_it_fell_due() -> None:
    ledger = known()
    ledger.want_all({"a": b"1"})
    ledger.owe()
    ledger.want("later", b"1")
    assert ledger.owed == {"a"}
    ledger.send("a")
    ledger.arrived("a", 2)
    assert not ledger.owed


class TestStoreWasReadAgain:
    def test_intact(self) -> None:
        assert not known(a=b"1").observe({"a": Stored(b"1", 1)}, {}, 1)

    def test_emptied(self) -> None:
        ledger = known(a=b"1")
        assert ledger.observe({}, {}, 0)
        assert ledger.due(10) == ["a"]

    def test_older_value(self) -> None:
        ledger = known(a=b"2")
        assert ledger.observe({"a": Stored(b"1", 1)}, {}, 1)
        assert ledger.due(10) == ["a"]

    def test_deletion_forgotten(self) -> None:
        ledger = known(a=b"1", b=b"1")
        ledger.want_all({"a": b"1"})
        ledger.send("b")
        ledger.arrived("b", 2)
        assert ledger.observe({"a": Stored(b"1", 1), "b": Stored(b"1", 1)}, {}, 1)
        assert ledger.due(10) == ["b"]
        assert ledger.send("b") is None

    def test_wanted_meanwhile_is_no_loss(self) -> None:
        ledger = known(a=b"1")
        ledger.want("a", None)
        ledger.want("b", b"2")
        assert not ledger.observe({}, {}, 1)
        assert ledger.due(10) == ["b"]


@pytest.mark.parametrize("seed", range(100))
def test_the_store_ends_as_wanted(seed: int) -> None:
    """Writes that get lost, answers that get lost, stores that forget: it ends right."""
    rng, ledger = random.Random(seed), Ledger()
    store: dict[str, Stored] = {}
    wanted: dict[str, bytes] = {}
    revision = 0

    def read() -> None:
        nonlocal revision
        for key in tuple(ledger.sent):
            ledger.unsent(key)
        ledger.observe(dict(store), {}, revision)

    def deliver(key: str, *, heard: bool = True) -> None:
        nonlocal revision
        data = ledger.sent[key]
        revision += 1
        if data is None:
            store.pop(key, None)
        else:
            store[key] = Stored(data, revision)
        if heard:
            ledger.arrived(key, revision)

    ledger.want_all({})
    for _ in range(80):
        match rng.choice(
            ["want", "want", "drop", "send", "answer", "answer", "lose", "deaf", "forget", "read"]
        ):
            case "want":
                key, data = rng.choice("abcde"), rng.randbytes(1)
                wanted[key] = data
                ledger.want(key, data)
            case "drop":
                key = rng.choice("abcde")
                wanted.pop(key, None)
                ledger.want(key, None)
            case "send":
                for key in ledger.due(3):
                    ledger.send(key)
            case "answer" if ledger.sent:
                deliver(rng.choice(sorted(ledger.sent)))
            case "lose" if ledger.sent:
                ledger.unsent(rng.choice(sorted(ledger.sent)))
            case "deaf" if ledger.sent:
                deliver(rng.choice(sorted(ledger.sent)), heard=False)
                read()  # the connection was lost with the answer
            case "forget" if store:
                store.pop(rng.choice(sorted(store)))
                read()
            case "read":
                read()
            case _:
                pass
    read()
    while keys := ledger.due(10):
        for key in keys:
            ledger.send(key)
        for key in keys:
            deliver(key)
    assert {key: stored.data for key, stored in store.items()} == wanted
    assert not ledger.dirty
