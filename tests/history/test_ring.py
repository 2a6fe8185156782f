"""The ring holds exactly the newest rows, in few tables, however they come."""

from dataclasses import replace

import numpy as np
import pytest

from cirri.history import ROW, Table
from cirri.history.gather import Gathering
from cirri.history.ring import Ring
from cirri.model import End, ServiceRef

A, B, C = (End(identity=n, pod=f"p{n}") for n in (1, 2, 3))


def table(first: int, count: int, *ends: End) -> Table:
    rows = np.zeros(count, ROW)
    rows["seq"] = np.arange(first, first + count)
    if ends:
        rows["source_end"] = 1 + np.arange(count) % len(ends)
    return Table("n1", 7, rows, ends)


def sequences(ring: Ring, *, newest_first: bool = False) -> list[list[int]]:
    return [t.rows["seq"].tolist() for t in ring.tables(newest_first=newest_first)]


@pytest.mark.parametrize("size", [1, 3, 100, 700, 5000])
@pytest.mark.parametrize("capacity", [1, 7, 1023, 4095])
def test_the_newest_rows_are_held(size: int, capacity: int) -> None:
    ring = Ring(capacity, "n1", 7)
    total = 0
    for _ in range(-(-3 * capacity // size) + 1):
        ring.take(table(total + 1, size))
        total += size

        assert (ring.seen, ring.held) == (total, min(total, capacity))
    flat = [seq for each in sequences(ring) for seq in each]
    assert flat == list(range(total - capacity + 1, total + 1))
    backwards = [seq for each in sequences(ring, newest_first=True) for seq in each[::-1]]
    assert backwards == flat[::-1]
    assert len(sequences(ring)) <= 20


def test_each_row_keeps_its_ends() -> None:
    ring = Ring(63, "n1", 7)
    for first in range(1, 200, 3):
        ring.take(table(first, 3, A, B, C))
    for each in ring.tables():
        assert len(each.ends) <= 3
        for row in each.rows:
            assert each.ends[row["source_end"] - 1].identity == 1 + (int(row["seq"]) - 1) % 3


def test_a_ring_that_shrinks_keeps_the_newest() -> None:
    ring = Ring(1023, "n1", 7)
    ring.take(table(1, 900))
    ring.take(table(901, 100))
    ring.resize(127)

    assert [seq for each in sequences(ring) for seq in each] == list(range(874, 1001))


def test_a_reader_sees_what_was_held_when_it_began() -> None:
    ring = Ring(15, "n1", 7)
    ring.take(table(1, 10))
    reading = ring.tables()
    ring.take(table(11, 10))

    assert [t.rows["seq"].tolist() for t in reading] == [list(range(1, 11))]


def test_gathering_holds_each_thing_once_and_only_what_rows_point_to() -> None:
    one, other = ServiceRef(namespace="a", name="b"), ServiceRef(namespace="c", name="d")
    first = replace(table(1, 4, A, B), services=(one, other))
    first.rows["destination_service"] = [0, 2, 0, 2]
    gathering = Gathering("n1", 7)
    gathering.add(first, np.array([1, 3]))
    gathering.add(table(5, 2, C, B))
    found = gathering.table()

    assert list(found.ends) == [B, C]
    assert list(found.services) == [other]
    assert found.rows["seq"].tolist() == [2, 4, 5, 6]
    assert found.rows["source_end"].tolist() == [1, 1, 2, 1]
    assert found.rows["destination_service"].tolist() == [1, 1, 0, 0]
    assert first.rows["destination_service"].tolist() == [0, 2, 0, 2]
