"""Rows that came late are told in their place."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from cirri.history import ROW, Table
from cirri.hubble.order import by_time

S = 10**9

CASES: list[tuple[list[list[float]], list[float]]] = [
    ([], []),
    ([[1, 2, 3]], [1, 2, 3]),
    ([[1, 2], [3, 4]], [1, 2, 3, 4]),
    ([[1, 1.2, 1.4], [1.1, 1.3]], [1, 1.1, 1.2, 1.3, 1.4]),
    ([[5], [5], [5.5], [5]], [5, 5, 5, 5.5]),
    ([[1, 9], [2], [8.5]], [1, 2, 8.5, 9]),
    ([[1, 9], [20], [8.5], [20.5]], [1, 9, 8.5, 20, 20.5]),  # later than a second: where it comes
]


@pytest.mark.parametrize(("given", "expected"), CASES)
def test_by_time(given: list[list[float]], expected: list[float]) -> None:
    async def pieces() -> AsyncIterator[tuple[Table, Any]]:
        seq = 0
        for times in given:
            rows = np.zeros(len(times), ROW)
            rows["time"] = [round(time * S) for time in times]
            rows["seq"] = range(seq, seq + len(times))
            seq += len(times)
            yield Table("node1", 1, rows), np.arange(len(times))

    async def collected() -> list[tuple[float, int]]:
        found = []
        async for table, indexes in by_time(pieces()):
            found += [(row["time"] / S, int(row["seq"])) for row in table.rows[indexes]]
        return found

    found = asyncio.run(collected())
    assert [time for time, _ in found] == expected
    same = [seq for time, seq in found if time == 5]
    assert same == sorted(same), "of one moment as they came"
