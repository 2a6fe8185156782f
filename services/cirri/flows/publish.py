"""Rows on their way to the cluster's stream: gathered, kept while the bus is away, losses counted."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cirri.history.gather import Gathering
from cirri.history.rows import RowType, Table, Verdict
from cirri.history.stream import LATE_S, make
from cirri.history.wire import encode
from cirri.kv import Bus, BusError, BusUnavailable, LogMissing
from cirri.kv.log import Limits, append
from cirri.model import FlowBatch, flow_subject
from cirri.model.flows import Verdict as Kind
from cirri.runtime.logs import Log

GATHER_S = 1.0
"""How long a row may wait for others."""
BATCH_ROWS = 16384
"""Of more rows none waits: some 200 KiB, if they are of one namespace."""
WAIT_BYTES = 48 << 20
"""Of messages that wait for the bus, packed or not: some three million rows; of more, the oldest are lost."""
HEADERS = 512
"""Bytes that a message has beside its payload, at most."""
AT_ONCE = 8
"""Messages that are under way."""
RETRY_S = (0.05, 1.0)

KINDS: tuple[Kind, ...] = ("forwarded", "dropped", "audited", "error")
_KIND = np.zeros(256, np.int64)
_KIND[Verdict.DROPPED], _KIND[Verdict.AUDIT], _KIND[Verdict.ERROR] = 1, 2, 3


@dataclass(slots=True)
class Message:
    """A batch that waits to be stored."""

    subject: str
    batch: FlowBatch | None
    """None: it is packed."""
    data: bytes
    number: int
    rows: int
    events: int
    """Of its rows: those of the kernel."""
    began: float

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return len(self.data) if self.batch is None else len(self.batch.rows)


class Publisher:
    """Has the stream, and everything that :meth:`take` gets, stored; :meth:`run` does the sending."""

    def __init__(
        self,
        bus: Bus,
        log: Log,
        who: tuple[str, int],
        lost: dict[str, int],
        settle: Callable[[int], None],
    ) -> None:
        """*who*: node and instance.  *lost* by cause is told with each batch, and counted up here.

        *settle* hears how many of the kernel's events were stored, or given up.
        """
        self._bus, self._log, (self._node, self._instance) = bus, log, who
        self._lost, self._settle = lost, settle
        self.limits: Mapping[str, Limits] = {}
        """Of each log, by name; nothing is sent before they are known."""
        self.stored = 0
        self.problem = "nothing has been stored yet"
        """Why batches are not stored; empty: they are."""
        self._made: tuple[int, object] = (0, None)
        self._open = Gathering(*who)
        self._waiting: deque[Message] = deque()
        self._under_way: list[Message] = []
        self._number = 0
        self._due: float | None = None
        self._some, self._known = asyncio.Event(), asyncio.Event()

    def want(self, limits: Mapping[str, Limits]) -> None:
        """Have the logs keep so much."""
        self.limits = dict(limits)
        self._known.set()
        self._some.set()

    def take(self, table: Table) -> None:
        """Have the rows of *table* stored soon."""
        self._open.add(table)
        if self._open.count >= BATCH_ROWS:
            self.flush()
        elif self._open.count and self._due is None:
            self._due = time.monotonic() + GATHER_S
            self._some.set()

    def flush(self) -> None:
        """What is gathered waits to be sent from now on."""
        self._due = None
        table, self._open = self._open.table(), Gathering(self._node, self._instance)
        times = table.rows["time"]
        if (times[1:] < times[:-1]).any():
            table = replace(table, rows=table.rows[np.argsort(times, kind="stable")])
        for (namespace, kind), which in parts(table):
            gathering = Gathering(self._node, self._instance)
            gathering.add(table, which)
            self._close(namespace, kind, gathering.table())

    async def run(self) -> None:
        """Until cancelled."""
        await self._known.wait()
        pause, longest = RETRY_S
        while True:
            if self._due is not None and time.monotonic() >= self._due:
                self.flush()
            if not self._waiting:
                self._some.clear()
                try:
                    async with asyncio.timeout(None if self._due is None else self._due - time.monotonic()):
                        await self._some.wait()
                except TimeoutError:
                    continue
                if (self._bus.link.generation, self.limits) == self._made:
                    continue
            await self._pack()
            try:
                await self._send()
                pause = RETRY_S[0]
            except BusError as error:
                self._say(str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)

    async def finish(self, within_s: float) -> None:
        """Send what there is, as far as that is possible in time; :meth:`run` has ended."""
        self.flush()
        try:
            async with asyncio.timeout(within_s):
                while self._waiting:
                    await self._pack()
                    await self._send()
        except (BusError, TimeoutError) as error:
            self._log.warning("not all was stored", rows=self.waiting_rows, error=str(error))

    @property
    def waiting_rows(self) -> int:
        """Rows that are not stored yet."""
        return sum(m.rows for m in self._waiting) + self._open.count

    async def _send(self) -> None:
        """Some messages that wait.  Raises: BusError; what was not stored waits again."""
        if not self._bus.connected:
            raise BusUnavailable(self._bus.link.url, self._bus.link.last_error)
        if (self._bus.link.generation, self.limits) != self._made:
            made = (self._bus.link.generation, self.limits)
            await make(self._bus, dict(self.limits))
            self._made = made
            self._say("")
        while len(self._under_way) < AT_ONCE and self._waiting and self._waiting[0].batch is None:
            self._under_way.append(self._waiting.popleft())
        sending = [append(self._bus.link, m.subject, m.data, self._id(m)) for m in self._under_way]
        results: list[BaseException | None] = []
        try:
            results = list(await asyncio.gather(*sending, return_exceptions=True))
        finally:
            again, failed = [], None
            for at, message in enumerate(self._under_way):
                error = results[at] if at < len(results) else asyncio.CancelledError()
                if error is None:
                    self._done(message)
                    self.stored += message.rows
                elif time.monotonic() - message.began > LATE_S:
                    self._give_up(message)
                else:
                    again.append(message)
                    failed = error
            self._under_way = []
            self._waiting.extendleft(reversed(again))
        if isinstance(failed, LogMissing):
            self._made = (0, None)  # it was emptied, or lost: it is made anew
        if failed is not None:
            raise failed
        self._say("")

    async def _pack(self) -> None:
        """What waits takes a tenth of its room when it is packed; that is done by a thread."""
        for message in [m for m in self._waiting if m.batch is not None]:
            if (batch := message.batch) is not None:
                data = await asyncio.to_thread(encode, batch)
                if 0 < self._bus.largest_message < len(data) + HEADERS:
                    self._split(message, batch)
                else:
                    message.data, message.batch = data, None

    def _split(self, message: Message, batch: FlowBatch) -> None:
        """The server takes no message of that size: there are two instead."""
        place = next((at for at, one in enumerate(self._waiting) if one is message), -1)
        if place < 0:
            return  # it has been given up meanwhile
        del self._waiting[place]
        if message.rows < 2:
            self._give_up(message)
            return
        table, half = Table.of(batch), message.rows // 2
        self._number += 1
        for number, which in ((self._number, slice(half, None)), (message.number, slice(half))):
            gathering = Gathering(self._node, self._instance)
            gathering.add(table, np.arange(message.rows)[which])
            part = self._message((batch.namespace, batch.verdict), gathering.table(), number)
            self._waiting.insert(place, part)

    def _id(self, message: Message) -> str:
        return f"{self._instance:016x}-{message.number}"

    def _message(self, what: tuple[str, Kind], table: Table, number: int) -> Message:
        """*what*: namespace and kind of verdict."""
        namespace, kind = what
        batch = FlowBatch(
            node=self._node,
            instance=self._instance,
            number=number,
            namespace=namespace,
            verdict=kind,
            first_ns=int(table.rows["time"].min()),
            last_ns=int(table.rows["time"].max()),
            lost=dict(self._lost),
            rows=table.rows.tobytes(),
            ends=tuple(table.ends),
            names=tuple(table.names),
            services=tuple(table.services),
            rules=tuple(table.rules),
            l7=tuple(table.l7),
            processes=tuple(table.processes),
        )
        events = int((table.rows["type"] != RowType.L7).sum())
        subject = flow_subject(namespace, kind, self._node)
        began = time.monotonic()
        return Message(subject, batch, b"", number, len(table.rows), events, began)

    def _close(self, namespace: str, kind: Kind, table: Table) -> None:
        self._number += 1
        self._waiting.append(self._message((namespace, kind), table, self._number))
        surplus = sum(m.size for m in self._waiting) - WAIT_BYTES
        while surplus > 0 and self._waiting:
            surplus -= self._waiting[0].size
            self._give_up(self._waiting.popleft())
        self._some.set()

    def _done(self, message: Message) -> None:
        self._settle(message.events)

    def _give_up(self, message: Message) -> None:
        self._lost["stream"] += message.rows
        self._done(message)

    def _say(self, problem: str) -> None:
        if problem and not self.problem:
            self._log.warning("flows are not stored", error=problem)
        self.problem = problem


def parts(table: Table) -> list[tuple[tuple[str, Kind], Any]]:
    """Which rows of *table* belong together: of one namespace, one kind of verdict."""
    places: dict[str, int] = {"": 0}
    of_end = np.array([0, *(places.setdefault(e.namespace, len(places)) for e in table.ends)], np.int64)
    number = np.array([0, *(e.endpoint for e in table.ends)], np.uint16)
    rows = table.rows
    source, destination, asked = rows["source_end"], rows["destination_end"], rows["endpoint"]
    place = np.where(number[source] == asked, of_end[source], 0)
    place = np.where(number[destination] == asked, of_end[destination], place)
    place[asked == 0] = 0
    keys = place * len(KINDS) + _KIND[rows["verdict"]]
    names = list(places)
    order = np.argsort(keys, kind="stable")
    found, counts = np.unique(keys, return_counts=True)
    ends = np.cumsum(counts)[:-1]
    return [
        ((names[key // len(KINDS)], KINDS[key % len(KINDS)]), which)
        for key, which in zip(found.tolist(), np.split(order, ends), strict=True)
    ]
