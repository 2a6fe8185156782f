"""The flows of this node: what was drained and heard becomes tables, and tables reach whoever wants them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from cirri.flows import decode, proxied
from cirri.flows.book import Book
from cirri.flows.enrich import Enricher
from cirri.flows.kernel import Raw
from cirri.flows.names import PodNames
from cirri.flows.origins import Origins
from cirri.history.rows import Rows, Table, joined
from cirri.model import L7Record, RuleRef

WAIT_S = 0.25
"""How long rows wait for news of whom they are about: a pod's first packets may be faster than the bus."""
LINGER_S, PROXIED_S = 0.2, 60.0
"""Where proxies have told something in the last minute, rows wait so long that theirs find their place: the
kernel's ring is looked at every 100 ms, and proxies gather for 50."""
PATIENT_ROWS = 65536
"""Of more rows that wait, none waits any longer."""
GIVEN_UP = 4096
"""Ends that are not waited for again, because it was in vain, until there is news."""

Take = Callable[[Table], None]


class _Waiting(NamedTuple):
    rows: Rows
    l7: tuple[L7Record, ...]
    since: float


class NodeFlows:
    """Rows in, tables out, in order.  Time is taken from the clock; IO is others'."""

    def __init__(
        self,
        book: Book,
        names: PodNames,
        rule: Callable[[int], RuleRef | None],
        instance: int,
        takers: Iterable[Take],
        *,
        origins: Origins | None = None,
    ) -> None:
        self.book, self.names, self._rule = book, names, rule
        self.takers: list[Take] = list(takers)
        self.seq = 0
        self.hopeful: Callable[[], bool] = lambda: False
        """Whether there may be news: there is a bus."""
        self._enricher = Enricher(book, names, rule, instance, origins=origins)
        self._waiting: deque[_Waiting] = deque()
        self._ready: _Waiting | None = None
        self._count = 0
        self._proxied_until = 0.0

    def events(self, raw: Raw) -> None:
        """What the kernel told."""
        offset_ns = time.time_ns() - time.monotonic_ns()
        self._add(decode.rows_of(decode.events_of(raw), offset_ns, self.seq + 1), ())

    def records(self, records: tuple[L7Record, ...]) -> None:
        """What proxies told."""
        self.names.answers(records)
        self._proxied_until = time.monotonic() + PROXIED_S
        self._add(proxied.rows_of(records, self.seq + 1), records)

    def news(self) -> None:
        """More is known of somebody."""
        self._enricher.given_up.clear()

    def settle(self, *, final: bool = False) -> float | None:
        """Pass on what need not wait; how long until what does need not any more (None: nothing waits)."""
        while (now := self._ready or self._next(final=final)) is not None:
            table, unknown = self._enricher.table(now.rows, now.l7)
            if unknown and not final and self._count < PATIENT_ROWS and self.hopeful():
                left_s = now.since + WAIT_S - time.monotonic()
                if left_s > 0:
                    self._ready = now
                    return left_s
            if len(self._enricher.given_up) > GIVEN_UP:
                self._enricher.given_up.clear()
            self._enricher.given_up |= unknown
            self._ready = None
            self._count -= len(now.rows)
            for take in self.takers:
                take(table)
        return self._waiting[0].since + LINGER_S - time.monotonic() if self._waiting else None

    def _next(self, *, final: bool) -> _Waiting | None:
        """What is to be passed on now; where proxies tell, too, what was seen at the same time in one."""
        now = time.monotonic()
        if not self._waiting:
            return None
        if self._proxied_until < now or self._count > PATIENT_ROWS:
            return self._waiting.popleft()
        together = []
        while self._waiting and (final or self._waiting[0].since + LINGER_S <= now):
            together.append(self._waiting.popleft())
        return _merged(together) if together else None

    def _add(self, rows: Rows, l7: tuple[L7Record, ...]) -> None:
        if len(rows):
            self.seq += len(rows)
            self._waiting.append(_Waiting(rows, l7, time.monotonic()))
            self._count += len(rows)


def _merged(parts: list[_Waiting]) -> _Waiting:
    """All rows of *parts* by time."""
    if len(parts) == 1:
        return parts[0]
    before = 0
    for part in parts:
        part.rows["l7"][part.rows["l7"] != 0] += np.uint32(before)
        before += len(part.l7)
    rows = joined([part.rows for part in parts])
    return _Waiting(
        rows[np.argsort(rows["time"], kind="stable")],
        tuple(record for part in parts for record in part.l7),
        parts[0].since,
    )
