"""Flows in the order of time: what proxies saw reaches a node's ring some tenths of a second late."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import numpy as np

from cirri.history import Table
from cirri.hubble.facts import Numbers

LATE_NS = 10**9
"""How much later than others of its time a row may come and still be put in its place."""

Chosen = tuple[Table, Numbers]
"""A table, and the indexes of some of its rows."""


async def by_time(chosen: AsyncIterator[Chosen], late_ns: int = LATE_NS) -> AsyncIterator[Chosen]:
    """The same rows by time, those of one moment as they came; at most *late_ns* of them wait at once."""
    waiting: list[Chosen] = []
    latest = 0
    async for table, indexes in chosen:
        waiting.append((table, indexes))
        latest = max(latest, int(table.rows["time"][indexes].max()))
        done, waiting = _split(waiting, latest - late_ns)
        for each in done:
            yield each
    for each in _sorted(waiting):
        yield each


def _split(waiting: list[Chosen], until_ns: int) -> tuple[list[Chosen], list[Chosen]]:
    """(rows up to *until_ns* in order, those that wait on)."""
    done, rest = [], []
    for table, indexes in waiting:
        old = table.rows["time"][indexes] <= until_ns
        if old.any():
            done.append((table, indexes[old]))
        if not old.all():
            rest.append((table, indexes[~old]))
    return list(_sorted(done)), rest


def _sorted(pieces: list[Chosen]) -> Iterator[Chosen]:
    """The rows of *pieces* by time, in runs of one table each."""
    if not pieces:
        return
    times = np.concatenate([table.rows["time"][indexes] for table, indexes in pieces])
    owner = np.repeat(np.arange(len(pieces)), [len(indexes) for _, indexes in pieces])
    index = np.concatenate([indexes for _, indexes in pieces])
    order = np.argsort(times, kind="stable")
    owner, index = owner[order], index[order]
    for run in np.split(np.arange(len(order)), np.flatnonzero(np.diff(owner)) + 1):
        yield pieces[owner[run[0]]][0], index[run]
