"""The cluster's stream of flows: what every node saw, kept for hours and days, read by time.

Batches stand in the order in which they were stored, which is that of their time but for some seconds, and
for batches that waited while the bus was away.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack

from cirri.history.wire import decode
from cirri.kv import Bus
from cirri.kv.log import Entry, Limits, Tail, ensure
from cirri.model.bucket import token
from cirri.model.flows import FLOW_LOGS, FLOW_SUBJECTS, NO_NAMESPACE, FlowBatch, Log, Verdict

LATE_S = 3600.0
"""Batches are stored at most so long after what they tell of: longer ones do not wait for the bus."""
WINDOW_S = 4.0
"""How much is read at once where the newest comes first; more where it holds little, less where much."""
FEW, MANY = 16, 256
"""Messages of a window that make the next one longer, or shorter."""
SECOND = 1_000_000_000


class Gaps:
    """What is missing between batches of each process; for readers of everything."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, int], int] = {}
        self._seen: dict[tuple[str, int], set[int]] = {}
        self.missing = 0
        """Batches that should be there by their numbers, and are not."""

    def note(self, batch: FlowBatch) -> None:
        """*batch* has been read; a late one fills its gap."""
        key = (batch.node, batch.instance)
        last = self._last.get(key)
        holes = self._seen.setdefault(key, set())
        if last is None:
            self._last[key] = batch.number
        elif batch.number > last:
            holes.update(range(last + 1, batch.number))
            self.missing += batch.number - last - 1
            self._last[key] = batch.number
        elif batch.number in holes:
            holes.discard(batch.number)
            self.missing -= 1


async def make(bus: Bus, limits: dict[str, Limits]) -> None:
    """Have both logs (by name) with their *limits*.  Raises: BusError."""
    for log in FLOW_LOGS:
        await ensure(bus.link, log.name, log.subjects, limits[log.name])


async def read(
    bus: Bus,
    *,
    since_ns: int = 0,
    until_ns: int | None = None,
    namespaces: Iterable[str] | None = None,
    verdicts: Iterable[Verdict] | None = None,
    newest_first: bool = False,
    nodes: Iterable[str] | None = None,
) -> AsyncIterator[FlowBatch]:
    """Batches that may hold rows of the given unix times, both ends included; None: all.

    "" among *namespaces* stands for what no pod's policy decided on.
    Raises: LogMissing (no ``flows`` has run yet), NotPermitted, BusError.
    """
    wanted = Wanted(since_ns, until_ns, None if nodes is None else {*nodes})
    sources = _sources(namespaces, verdicts)
    entries = _backward(bus, sources, wanted) if newest_first else _forward(bus, sources, wanted)
    async for entry in entries:
        batch = decode(entry.data)
        if wanted.has(batch):
            yield batch


async def follow(
    bus: Bus,
    *,
    since_ns: int | None = None,
    namespaces: Iterable[str] | None = None,
    verdicts: Iterable[Verdict] | None = None,
    nodes: Iterable[str] | None = None,
) -> AsyncIterator[FlowBatch]:
    """Batches from *since_ns* on (None: from now on) as they are stored, for ever; over losses of the bus.

    There need not be any stream yet.  Raises: NotPermitted.
    """
    wanted = Wanted(since_ns or 0, None, None if nodes is None else {*nodes})
    found: asyncio.Queue[Entry] = asyncio.Queue(MANY)

    async def pump(log: Log, pattern: str) -> None:
        tail = Tail(bus.link, log.name, pattern, since_ns)
        try:
            async for entry in tail.entries(follow=True):
                await found.put(entry)
        finally:
            await tail.close()

    tasks = [asyncio.ensure_future(pump(log, p)) for log, p in _sources(namespaces, verdicts)]
    try:
        while True:
            waiting = asyncio.ensure_future(found.get())
            await asyncio.wait((waiting, *tasks), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                for task in tasks:
                    if task.done():
                        task.result()
                continue
            batch = decode(waiting.result().data)
            if wanted.has(batch):
                yield batch
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Wanted:
    """Which batches are asked for."""

    def __init__(self, since_ns: int, until_ns: int | None, nodes: set[str] | None) -> None:
        self.since_ns, self.until_ns, self.nodes = since_ns, until_ns, nodes

    def has(self, batch: FlowBatch) -> bool:
        """Whether *batch* may hold rows that are."""
        return (
            batch.last_ns >= self.since_ns
            and (self.until_ns is None or batch.first_ns <= self.until_ns)
            and (self.nodes is None or batch.node in self.nodes)
        )

    @property
    def stored_until_ns(self) -> int | None:
        """When the last of them may have been stored."""
        return None if self.until_ns is None else self.until_ns + int(LATE_S * SECOND)


def _sources(namespaces: Iterable[str] | None, verdicts: Iterable[Verdict] | None) -> list[tuple[Log, str]]:
    """(log, pattern of subjects): what has to be read, each of which needs but its own permission."""
    wanted = None if verdicts is None else {*verdicts}
    places = ["*"] if namespaces is None else [token(n) if n else NO_NAMESPACE for n in {*namespaces}]
    found = []
    for log in FLOW_LOGS:
        # Apart, since nats-server takes no filter that is wider than one of a stream's subjects.
        some = [v for v in log.verdicts if wanted is None or v in wanted]
        found += [(log, f"{FLOW_SUBJECTS}.{place}.{verdict}.*") for place in places for verdict in some]
    return found


async def _forward(
    bus: Bus, sources: Sequence[tuple[Log, str]], wanted: Wanted, *, stored_until_ns: int | None = None
) -> AsyncIterator[Entry]:
    """By time of storing, of all *sources* together."""
    end = stored_until_ns if stored_until_ns is not None else wanted.stored_until_ns
    async with AsyncExitStack() as stack:
        tails = [
            await stack.enter_async_context(Tail(bus.link, log.name, pattern, wanted.since_ns))
            for log, pattern in sources
        ]
        heads: list[tuple[int, int, Entry]] = []
        for number, tail in enumerate(tails):
            if (entry := await tail.next(wait=False)) is not None:
                heapq.heappush(heads, (entry.time_ns, number, entry))
        while heads:
            _, number, entry = heads[0]
            if end is not None and entry.time_ns > end:
                return
            yield entry
            following = await tails[number].next(wait=False)
            if following is None:
                heapq.heappop(heads)
            else:
                heapq.heapreplace(heads, (following.time_ns, number, following))


async def _backward(bus: Bus, sources: Sequence[tuple[Log, str]], wanted: Wanted) -> AsyncIterator[Entry]:
    """The same the other way round, window by window: JetStream reads forward only."""
    oldest = None
    async for entry in _forward(bus, sources, wanted):
        oldest = entry.time_ns
        break
    if oldest is None:
        return
    end: int | None = wanted.stored_until_ns
    now = time.time_ns()
    end = None if end is None or end > now else end
    length = int(WINDOW_S * SECOND)
    begin = (now if end is None else end) + 1
    while begin > oldest:
        begin = max(oldest, begin - length)
        window = Wanted(begin, None, None)
        found = [entry async for entry in _forward(bus, sources, window, stored_until_ns=end)]
        for entry in sorted(found, key=lambda one: one.time_ns, reverse=True):
            yield entry
        end = begin - 1
        if len(found) < FEW:
            length *= 8
        elif len(found) > MANY:
            length //= 2
