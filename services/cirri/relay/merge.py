"""Responses of several nodes as one stream, by time."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import Any

RECENT = 65_536
"""Flows that are remembered so that none is told twice."""
WAITING = 65_536
"""Responses that a window holds; the oldest go first when there are more."""


def moment(response: Any) -> int:
    """Unix ns of *response*."""
    return int(response.time.seconds) * 10**9 + int(response.time.nanos)


class Recent:
    """What was told lately."""

    def __init__(self) -> None:
        self._told: OrderedDict[str | bytes, None] = OrderedDict()

    def first(self, response: Any) -> bool:
        """Whether *response* tells something new; then it is not new any more."""
        if not (name := _name(response)):
            return True
        if name in self._told:
            return False
        self._told[name] = None
        if len(self._told) > RECENT:
            self._told.popitem(last=False)
        return True


def _name(response: Any) -> str | bytes:
    """What two that tell the same have in common; empty: such are told as often as they come."""
    if response.DESCRIPTOR.name == "GetAgentEventsResponse":
        return bytes(response.SerializeToString(deterministic=True))
    return str(response.flow.uuid) if response.WhichOneof("response_types") == "flow" else ""


async def in_order(streams: Sequence[AsyncIterator[Any]]) -> AsyncIterator[Any]:
    """All responses of *streams*, each of which is in order; it waits for the slowest."""
    heads: list[tuple[int, int, Any]] = []

    async def push(number: int) -> None:
        async for response in streams[number]:
            heapq.heappush(heads, (moment(response), number, response))
            return

    for number in range(len(streams)):
        await push(number)
    while heads:
        _, number, response = heapq.heappop(heads)
        yield response
        await push(number)


class Window:
    """Responses wait so that what others saw earlier can come before them."""

    def __init__(self, length_ns: int) -> None:
        self._length_ns = length_ns
        self._heap: list[tuple[int, int, Any]] = []
        self._number = 0

    def put(self, response: Any) -> None:
        """One more."""
        self._number += 1
        heapq.heappush(self._heap, (moment(response), self._number, response))

    def due(self, now_ns: int) -> list[Any]:
        """What has waited long enough, in order."""
        found = []
        while self._heap and (self._heap[0][0] <= now_ns - self._length_ns or len(self._heap) > WAITING):
            found.append(heapq.heappop(self._heap)[2])
        return found

    def wait_s(self, now_ns: int) -> float | None:
        """Until something is due; None: nothing waits."""
        if not self._heap:
            return None
        return float(max(0, self._heap[0][0] + self._length_ns - now_ns) / 10**9)
