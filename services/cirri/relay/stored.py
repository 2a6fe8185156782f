"""Flows of the cluster's stream as responses: what nodes no longer hold, and nodes that are away."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable
from typing import Any

from cirri.history import Table
from cirri.hubble.facts import Place, Test
from cirri.hubble.flows import Teller
from cirri.hubble.wanted import EVER, Wanted, indexes
from cirri.model.flows import FlowBatch

LATE_NS = 5 * 10**9
"""How much later than others a batch is stored, at most, while the bus is there."""

Read = Callable[..., AsyncIterator[FlowBatch]]
"""``cirri.history.stream.read`` on the bus."""


def forward(read: Read, wanted: Wanted, test: Test, place: Place) -> AsyncIterator[Any]:
    """Everything that is wanted, oldest first."""
    batches = read(since_ns=wanted.since_ns, until_ns=_until(wanted))
    return _sorted(batches, wanted, test, place)


async def _sorted(
    batches: AsyncIterator[FlowBatch], wanted: Wanted, test: Test, place: Place
) -> AsyncIterator[Any]:
    heap: list[tuple[int, int, Teller, int]] = []
    count = 0
    async for batch in batches:
        table = Table.of(batch)
        teller = Teller(table, place)
        for index in indexes(wanted, test, table).tolist():
            count += 1
            heapq.heappush(heap, (int(table.rows["time"][index]), count, teller, index))
        while heap and heap[0][0] < batch.last_ns - LATE_NS:
            _, _, told, index = heapq.heappop(heap)
            yield told.response(index)
    while heap:
        _, _, told, index = heapq.heappop(heap)
        yield told.response(index)


async def newest(read: Read, wanted: Wanted, test: Test, place: Place, enough: int) -> list[Any]:
    """The newest *enough* that are wanted, oldest first."""
    heap: list[tuple[int, int, Teller, int]] = []
    count = 0
    async for batch in read(since_ns=wanted.since_ns, until_ns=_until(wanted), newest_first=True):
        if len(heap) == enough and batch.last_ns < heap[0][0] - LATE_NS:
            break
        table = Table.of(batch)
        teller = Teller(table, place)
        for index in indexes(wanted, test, table)[-enough:].tolist():
            count += 1
            heapq.heappush(heap, (int(table.rows["time"][index]), count, teller, index))
            if len(heap) > enough:
                heapq.heappop(heap)
    return [teller.response(index) for _, _, teller, index in sorted(heap, key=lambda one: one[:2])]


def _until(wanted: Wanted) -> int | None:
    return None if wanted.until_ns == EVER else wanted.until_ns
