"""L7 records on their way to the bus: in batches, never in the way of who makes them, losses counted."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

import msgspec

from cirri.kv import BusError
from cirri.model.records import L7_RECORDS, L7Batch, L7Record
from cirri.runtime.runtime import Runtime

GATHER_S = 0.05
"""How long a record may wait for others."""
BATCH = 512
"""Records in one message: about 200 KiB, a fifth of what a default server takes."""
WAITING = 16 * BATCH
"""Records that may wait; of more, the oldest are lost."""


class RecordStream:
    """Tells records of this process on ``cirri.l7.NODE``; :meth:`run` does the sending."""

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._waiting: deque[L7Record] = deque()
        self._some = asyncio.Event()
        self._instance = f"{os.getpid()}"
        self.lost, self.told, self._number = 0, 0, 0

    def add(self, records: Iterable[L7Record]) -> None:
        """Have *records* told soon.  Costs the caller no waiting."""
        self._waiting.extend(records)
        while len(self._waiting) > WAITING:
            self._waiting.popleft()
            self.lost += 1
        if self._waiting:
            self._some.set()

    def lose(self, count: int) -> None:
        """*count* records were never made: there was no time for them."""
        self.lost += count

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(GATHER_S)
            self._some.clear()
            while self._waiting:
                count = min(BATCH, len(self._waiting))
                await self._tell(tuple(self._waiting.popleft() for _ in range(count)))

    async def _tell(self, records: tuple[L7Record, ...]) -> None:
        self._number += 1
        batch = L7Batch(
            node=self._rt.settings.node,
            proxy=self._rt.service.name,
            instance=self._instance,
            number=self._number,
            lost=self.lost,
            told=self.told,
            records=records,
        )
        with suppress(BusError):
            await self._rt.tell(L7_RECORDS, msgspec.msgpack.encode(batch))
            self.told += len(records)
            return
        self.lost += len(records)
