"""Batches on their way to the log: kept while the bus is away, losses counted."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from msgspec.structs import replace

from cirri.history.runtimewire import encode
from cirri.kv import Bus, BusError, LogMissing
from cirri.kv.log import Limits, append, ensure
from cirri.model.runtimeevents import RUNTIME_LOG, RuntimeBatch, runtime_subject

LIMITS = Limits(age_s=24 * 3600.0, bytes=64 << 20)
WAITING = 64
"""Batches that wait for the bus: some 16 MB; of more, the oldest are lost."""
RETRY_S = 0.5


class Publisher:
    """Has the log, and what :meth:`put` gets stored in it; :meth:`run` does the sending."""

    def __init__(self, bus: Bus, lost: dict[str, int]) -> None:
        """*lost* by cause is told with each batch; ``stream`` is counted up here."""
        self._bus, self._lost = bus, lost
        self._waiting: deque[RuntimeBatch] = deque()
        self._some = asyncio.Event()
        self._made = False
        self.stored = 0
        """Events."""

    @property
    def waiting(self) -> int:
        """Events that are not stored yet."""
        return sum(batch.count for batch in self._waiting)

    def put(self, batches: Iterable[RuntimeBatch]) -> None:
        """Have *batches* stored soon."""
        self._waiting.extend(batches)
        while len(self._waiting) > WAITING:
            self._lost["stream"] += self._waiting.popleft().count
        if self._waiting:
            self._some.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._some.wait()
            try:
                await self.send()
            except BusError:
                await asyncio.sleep(RETRY_S)

    async def send(self) -> None:
        """Store what waits.  Raises: BusError; the rest waits on."""
        if not self._made:
            await ensure(self._bus.link, RUNTIME_LOG.name, RUNTIME_LOG.subjects, LIMITS)
            self._made = True
        while self._waiting:
            batch = self._waiting[0]
            data = encode(replace(batch, lost=dict(self._lost)))
            number = f"{batch.instance:016x}-{batch.number}"
            try:
                await append(self._bus.link, runtime_subject(batch.namespace, batch.node), data, number)
            except LogMissing:
                self._made = False
                raise
            if self._waiting and self._waiting[0] is batch:
                self._waiting.popleft()
            self.stored += batch.count
        self._some.clear()
