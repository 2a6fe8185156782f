"""Keep bucket ``identities`` equal to what is in use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from cirri.identity.allocator import Allocator
from cirri.identity.book import Book
from cirri.identity.demand import Demand, LabelSet
from cirri.kv import Bus, Publisher, Table
from cirri.labels import IdentitiesExhausted, Space, space_of
from cirri.model import Identity

RELEASE_S = 2.0
"""How long a number outlives its last use: a pod that is replaced gets its predecessor's."""

FOUND_S = 10.0
"""The same for numbers found in the bucket at the start, whose users may not have reported yet."""

AT_ONCE = 64
"""Numbers that are taken, or released, at the same time."""


class Keeper:
    """Decides from *demand*; *stored* follows the bucket, *now* is a clock in seconds."""

    def __init__(
        self,
        bus: Bus,
        publisher: Publisher[Identity],
        stored: Table[Identity],
        demand: Demand,
        *,
        now: Callable[[], float],
        space: Callable[[LabelSet], Space] = space_of,
        log: Callable[..., Any] = lambda *_, **__: None,
    ) -> None:
        self.book = Book(space)
        self.demand = demand
        self.allocator = Allocator(bus, publisher, stored, self.book, demand)
        self.errors: dict[LabelSet, str] = {}
        """Label sets without a number, and why."""
        self._now, self._log = now, log
        self._unused: dict[int, float] = {}
        """Numbers without a use, and when they are to be released."""
        self._found: set[int] = set()
        """Those of them that were found at the start: nobody has been seen to use and leave them."""
        self._missing: set[LabelSet] = set()
        """Label sets in use that have no number yet."""

    @property
    def waiting(self) -> int:
        """Label sets in use that have no number yet."""
        return len(self._missing)

    def found(self, identities: Iterable[Identity]) -> None:
        """Take over what the bucket holds at the start."""
        for identity in identities:
            self.book.learn(identity)
            self._unused[identity.id] = self._now() + FOUND_S
            self._found.add(identity.id)

    async def allocate(self, *, again: bool = True) -> None:
        """Give every label set in use a number.

        *again*: also try those that could have none before.  Raises: BusError; who has no number then
        gets it by the next call.
        """
        fresh = self.demand.take_fresh() | self.book.take_orphans()
        self._missing = {labels for labels in self._missing | fresh if self._lacks(labels)}
        self.errors = {labels: why for labels, why in self.errors.items() if labels in self._missing}
        wanted = self._missing if again else self._missing - self.errors.keys()
        # Those whose numbers are in force somewhere come first: nobody else may get these.
        order = sorted(wanted, key=lambda labels: not self.demand.reported(labels))
        await _each(order, self._allocate)
        self._missing = set(filter(self._lacks, self._missing))

    async def release(self, *, settled: bool, whole: bool = True) -> None:
        """Release numbers that have been out of use for long enough.

        *settled*: what is in use is known; otherwise nothing is known to be unused.  *whole*: every node
        has reported; otherwise one may use a number that was found at the start.  Raises: BusError.
        """
        if self.allocator.pending:
            await self.allocator.refresh()
        now = self._now()
        unused = set(filter(self._is_unused, self._suspects()))
        self._unused = {number: self._unused.get(number, now + RELEASE_S) for number in unused}
        self._found &= unused
        if not settled:
            return
        due = [n for n, when in self._unused.items() if when <= now and (whole or n not in self._found)]
        if due:
            # Another instance may have passed one of them a moment ago, or do so at this moment.
            await self.allocator.refresh()
            due = list(filter(self._is_unused, due))
            await _each(due, self._release)
            await self.allocator.refresh()
            await _each(due, self.allocator.keep_closed)

    def _suspects(self) -> set[int]:
        """Numbers that may be out of use."""
        sets, numbers = self.demand.take_ended()
        of_sets = (number for labels in sets for number in self.book.numbers(labels))
        return {*self._unused, *self.book.take_touched(), *numbers, *of_sets}

    async def _allocate(self, labels: LabelSet) -> None:
        try:
            number = await self.allocator.allocate(labels, self.demand.reported(labels))
        except IdentitiesExhausted as error:
            if labels not in self.errors:
                self._log("no identity", error=str(error))
            self.errors[labels] = str(error)
            return
        self.errors.pop(labels, None)
        self._unused.pop(number, None)

    async def _release(self, number: int) -> None:
        await self.allocator.release(number)
        self._unused.pop(number, None)

    def _lacks(self, labels: LabelSet) -> bool:
        return self.demand.wants(labels) and self.book.number(labels) is None

    def _is_unused(self, number: int) -> bool:
        labels = self.book.labels(number)
        if labels is None:
            return False
        if not labels:
            return not (self.book.passed(number) or self.demand.holds(number))
        if self.book.surplus(number):
            return True
        return not (self.demand.wants(labels) or self.demand.holds(number))


async def _each(items: Sequence[Any], work: Callable[[Any], Awaitable[None]]) -> None:
    """Do *work* for every item, several at a time; after an error the next ones are not begun.

    Raises: BusError.
    """
    for start in range(0, len(items), AT_ONCE):
        batch = items[start : start + AT_ONCE]
        results = await asyncio.gather(*map(work, batch), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
