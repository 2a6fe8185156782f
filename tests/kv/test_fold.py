"""A reader's belief survives every way in which a store can forget."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from cirri.kv.fold import Fold
from cirri.kv.wire import Bad, Marker

COMPLETE = Marker(complete=True, era=1)


def fold(*, sharded: bool = False) -> Fold[str]:
    return Fold((lambda key: key.split(".")[0]) if sharded else (lambda key: ""))


def values(state: Fold[str]) -> dict[str, str]:
    return {key: cell.value for key, cell in state.cells.items()}


def loaded() -> Fold[str]:
    """A reader that has seen ``a`` and ``b`` whole."""
    state = fold()
    state.begin("monday", 3)
    state.entry("a", "1", 1)
    state.entry("b", "2", 2)
    state.marker("", COMPLETE, 3)
    assert state.end(("",)) == {"a", "b"}
    return state


def test_snapshot_with_marker_is_the_truth() -> None:
    state = loaded()
    state.begin("monday", 5)
    state.entry("b", "2", 2)
    state.marker("", COMPLETE, 3)
    state.entry("c", "3", 5)
    assert state.end(("",)) == {"a", "c"}
    assert values(state) == {"b": "2", "c": "3"}
    assert state.revision == 5


def test_emptied_store_is_not_read_as_nothing_wanted() -> None:
    state = loaded()
    state.begin("tuesday", 0)
    assert state.end(("",)) == frozenset()
    assert values(state) == {"a": "1", "b": "2"}
    assert state.open.keys() == {""}


def test_half_rewritten_store_adds_and_drops_nothing_until_the_marker() -> None:
    state = loaded()
    state.begin("tuesday", 1)
    state.entry("a", "9", 1)
    assert state.end(("",)) == {"a"}
    assert values(state) == {"a": "9", "b": "2"}
    assert state.entry("c", "3", 2) == {"c"}
    assert state.marker("", Marker(complete=True, era=2), 3) == {"b"}
    assert values(state) == {"a": "9", "c": "3"}
    assert not state.open


def test_owner_says_that_it_rewrites() -> None:
    state = loaded()
    state.begin("monday", 6)
    state.entry("a", "1", 1)
    state.marker("", Marker(complete=False, era=2), 6)
    assert state.end(("",)) == frozenset()
    assert values(state) == {"a": "1", "b": "2"}


def test_explicit_deletion_counts_while_the_marker_is_awaited() -> None:
    state = loaded()
    state.begin("tuesday", 0)
    state.end(("",))
    assert state.entry("b", None, 1) == {"b"}


class TestStoreThatWentBack:
    """Acknowledged writes were lost: the same stream ends earlier than before."""

    def went_back(self) -> Fold[str]:
        state = loaded()
        state.entry("a", "new", 4)
        state.entry("b", None, 5)
        state.begin("monday", 3)
        state.entry("a", "1", 1)
        state.entry("b", "2", 2)
        state.marker("", COMPLETE, 3)
        assert state.end(("",)) == frozenset()
        return state

    def test_is_not_believed(self) -> None:
        assert values(self.went_back()) == {"a": "new"}

    def test_is_believed_about_new_messages(self) -> None:
        state = self.went_back()
        assert state.entry("a", "newer", 4) == {"a"}

    def test_stays_doubted_over_another_snapshot(self) -> None:
        state = self.went_back()
        state.begin("monday", 3)
        state.entry("a", "1", 1)
        state.entry("b", "2", 2)
        state.marker("", COMPLETE, 3)
        assert state.end(("",)) == frozenset()

    def test_is_believed_after_a_new_marker(self) -> None:
        state = self.went_back()
        state.entry("b", None, 5)
        assert state.marker("", Marker(complete=True, era=2), 6) == {"a"}
        assert values(state) == {"a": "1"}

    def test_is_believed_if_the_snapshot_has_a_newer_marker(self) -> None:
        state = self.went_back()
        state.begin("monday", 4)
        state.entry("b", "2", 2)
        state.marker("", Marker(complete=True, era=2), 4)
        assert state.end(("",)) == {"a", "b"}

    def test_older_marker_betrays_it_even_if_the_stream_has_grown_again(self) -> None:
        state = loaded()
        state.marker("", Marker(complete=True, era=5), 4)
        state.begin("monday", 9)
        state.marker("", COMPLETE, 3)
        state.entry("z", "0", 9)
        assert state.end(("",)) == frozenset()
        assert values(state) == {"a": "1", "b": "2"}


def test_unreadable_value_leaves_the_last_good_one() -> None:
    state = loaded()
    assert state.entry("a", Bad("garbage"), 4) == frozenset()
    state.begin("monday", 4)
    state.entry("a", Bad("garbage"), 4)
    state.marker("", COMPLETE, 3)
    state.end(("",))
    assert values(state) == {"a": "1"}


def test_shards_complete_one_by_one() -> None:
    state = fold(sharded=True)
    state.begin("monday", 4)
    state.entry("n1.x", "1", 1)
    state.entry("n2.x", "1", 2)
    state.marker("n1", COMPLETE, 3)
    state.marker("n2", COMPLETE, 4)
    state.end()
    state.begin("tuesday", 2)
    state.marker("n1", Marker(complete=True, era=2), 1)
    assert state.end() == {"n1.x"}
    assert values(state) == {"n2.x": "1"}
    assert state.marker("n2", Marker(complete=True, era=2), 2) == {"n2.x"}


def test_a_shard_that_holds_nothing_is_complete_too() -> None:
    state = fold(sharded=True)
    state.begin("monday", 2)
    state.marker("n1", COMPLETE, 1)
    state.marker("n2", Marker(complete=False, era=1), 2)
    assert state.end() == frozenset()
    assert state.eras == {"n1": 1, "n2": 1}
    assert state.open.keys() == {"n2"}
    assert state.entry("n1.a", "1", 3) == {"n1.a"}
    assert state.open.keys() == {"n2"}


def test_bucket_without_markers_follows_what_is_written() -> None:
    state = fold(sharded=True)
    state.begin("monday", 1)
    state.entry("s.lease", "a", 1)
    state.end()
    state.begin("monday", 0)
    state.entry("s.lease", "b", 1)
    assert state.end() == {"s.lease"}


def test_revisions_go_with_the_stream() -> None:
    state = loaded()
    state.begin("tuesday", 2)
    state.entry("a", "1", 1)
    state.marker("", Marker(complete=True, era=2), 2)
    state.end(("",))
    assert state.revision == 2
    assert state.cells["a"].revision == 1


@dataclass
class World:
    """An owner that knows what it wants, a store that forgets, and a reader that comes and goes."""

    rng: random.Random
    wanted: dict[str, str] = field(default_factory=dict)
    stream: list[tuple[str, str | Marker | None]] = field(default_factory=list)
    created: int = 0
    era: int = 0
    reader: Fold[str] = field(default_factory=fold)
    following: int | None = None  # index of the next message, if connected
    lives: dict[str, set[str]] = field(default_factory=dict)  # values since the key was last made
    seen: set[str] = field(default_factory=set)  # keys that the reader has had in their present life

    def write(self, key: str, word: str | Marker | None) -> None:
        self.stream.append((key, word))

    def rewrite(self) -> None:
        """What a publisher does after a reconnect."""
        stored = {k: w for k, w in self.last().items() if not isinstance(w, Marker)}
        if any(stored.get(k) != w for k, w in self.wanted.items()) or any(
            w is not None and k not in self.wanted for k, w in stored.items()
        ):
            self.mark(complete=False)
            for key, word in self.wanted.items():
                if stored.get(key) != word:
                    self.write(key, word)
                    self.read(self.rng.randrange(2))
            for key in stored.keys() - self.wanted.keys():
                if stored[key] is not None:
                    self.write(key, None)
        self.mark(complete=True)

    def mark(self, *, complete: bool) -> None:
        self.era += 1
        self.write("_", Marker(complete=complete, era=self.era))

    def last(self) -> dict[str, str | Marker | None]:
        return dict(self.stream)

    def read(self, count: int) -> None:
        """The reader takes the next *count* messages, from a snapshot if it has just come."""
        if self.following is None:
            final: dict[str, int] = {key: index for index, (key, _) in enumerate(self.stream)}
            self.reader.begin(str(self.created), len(self.stream))
            for index in sorted(final.values()):
                self.give(index)
            self.reader.end(("",))
            self.following = len(self.stream)
        for _ in range(count):
            if self.following < len(self.stream):
                self.give(self.following)
                self.following += 1
        self.check()

    def give(self, index: int) -> None:
        key, word = self.stream[index]
        if isinstance(word, Marker):
            self.reader.marker("", word, index + 1)
        else:
            self.reader.entry(key, word, index + 1)

    def check(self) -> None:
        """What was wanted all the time since the reader saw it is never gone."""
        for key in self.seen & self.wanted.keys():
            assert key in self.reader.cells, key
        cells = self.reader.cells
        self.seen = {k for k, life in self.lives.items() if k in cells and cells[k].value in life}


@pytest.mark.parametrize("seed", range(150))
def test_nothing_wanted_ever_vanishes_and_all_ends_equal(seed: int) -> None:
    world = World(random.Random(seed))
    rng = world.rng
    world.rewrite()
    for _ in range(60):
        match rng.choice(["put", "put", "delete", "read", "read", "leave", "wipe", "back"]):
            case "put":
                key, value = rng.choice("abcdefgh"), str(rng.random())
                world.wanted[key] = value
                world.lives.setdefault(key, set()).add(value)
                world.write(key, value)
            case "delete" if world.wanted:
                key = rng.choice(sorted(world.wanted))
                del world.wanted[key], world.lives[key]
                world.seen.discard(key)
                world.write(key, None)
            case "read":
                world.read(rng.randrange(5))
            case "leave":
                world.following = None
            case "wipe":
                world.stream, world.following, world.created = [], None, world.created + 1
                if rng.random() < 0.5:
                    world.read(0)
                world.rewrite()
            case "back":
                del world.stream[rng.randrange(len(world.stream) + 1) :]
                world.following = None
                if rng.random() < 0.5:
                    world.read(0)
                world.rewrite()
            case _:
                pass
    world.read(1000)
    assert values(world.reader) == world.wanted
    assert not world.reader.open
