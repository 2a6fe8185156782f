"""Take and release numbers in the bucket, safe against another instance that does the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from cirri.identity.book import Book
from cirri.identity.demand import Demand, LabelSet
from cirri.kv import Bus, KeyTaken, Publisher, StaleRevision, Table
from cirri.kv.news import News
from cirri.labels import IdentitiesExhausted
from cirri.model import IDENTITIES, Identity


class Allocator:
    """Writes bucket ``identities``; *book* is what it knows, *demand* what is in use.

    *stored* follows the bucket, for what another instance writes.
    """

    def __init__(
        self, bus: Bus, publisher: Publisher[Identity], stored: Table[Identity], book: Book, demand: Demand
    ) -> None:
        self._bus, self._publisher, self._stored = bus, publisher, stored
        self.book = book
        self._demand = demand
        self._news = News({"identities": stored})
        self._written: dict[int, int] = {}
        """Revisions at which the book learnt of numbers past *stored*, which may be behind."""
        self._turn, self._begun, self._done = asyncio.Lock(), 0, 0

    @property
    def pending(self) -> bool:
        """Whether the bucket says something that the book does not know."""
        return self._news.pending

    async def refresh(self) -> None:
        """Have the book know everything that the bucket held at the time of the call.

        Those who ask at the same time are served together.  Raises: BusError.
        """
        asked = self._begun
        async with self._turn:
            if self._done > asked:
                return
            self._begun += 1
            await self._stored.caught_up()
            seen = self._stored.revision
            for key in self._news.take()["identities"]:
                number = int(key)
                if self._written.get(number, 0) <= seen:
                    self._learn(number, self._stored.get(key))
            self._written = {number: r for number, r in self._written.items() if r > seen}
            self._done = self._begun

    async def allocate(self, labels: LabelSet, reported: Iterable[int] = ()) -> int:
        """The number of *labels*, taken if it has none yet.

        A number among *reported* (in force on endpoints with these labels) is preferred if it is free
        and one that *labels* may have.  Raises: IdentitiesExhausted, BusError.
        """
        while (known := self.book.number(labels)) is None:
            await self._take(labels, reported)
        return known

    async def release(self, number: int) -> None:
        """Give *number* back, or retire it if a free one would hide another set's.  Raises: BusError."""
        key = str(number)
        if (known := self._stored.get(key)) is None or known.labels != self.book.labels(number):
            return  # somebody was faster
        revision = self._stored.revision_of(key)
        try:
            if self.book.passed(number) or self._demand.holds(number):
                self._written[number] = await self._bus.put(IDENTITIES, _retired(number), revision=revision)
                self.book.learn(_retired(number))
            else:
                self._written[number] = await self._bus.delete(IDENTITIES, key, revision=revision)
                self.book.forget(number)
        except StaleRevision:
            return

    async def keep_closed(self, number: int) -> None:
        """Retire *number*, if it is free, when a set passed it while it was being released.

        Raises: BusError.
        """
        if self.book.passed(number) and self.book.labels(number) is None:
            await self._create(_retired(number))

    async def _take(self, labels: LabelSet, reported: Iterable[int]) -> None:
        if await self._take_back(labels, reported):
            return
        before: list[int] = []
        for number in self.book.order(labels):
            if self.book.labels(number) is None:
                if self._demand.held_by_others(number, labels):
                    await self._create(_retired(number))
                elif await self._changed(before):
                    return  # the next attempt sees what is so now
                else:
                    await self._create(Identity(id=number, labels=labels))
            if self.book.labels(number) == labels:
                await self._close(before)
                if self.book.surplus(number):
                    await self.release(number)
                return
            before.append(number)
        raise IdentitiesExhausted(labels, len(before))

    async def _take_back(self, labels: LabelSet, reported: Iterable[int]) -> bool:
        """Take a number that *labels* has in force, if it is free; whether the attempt was made."""
        free = [number for number in reported if self.book.labels(number) is None]
        if not free:
            return False
        order = list(self.book.order(labels))
        wanted = next((number for number in free if number in order), None)
        if wanted is None:
            return False
        for number in order[: order.index(wanted)]:
            if self.book.labels(number) is None:
                await self._create(_retired(number))
            if self.book.labels(number) == labels:
                return True
        await self._create(Identity(id=wanted, labels=labels))
        return True

    async def _create(self, identity: Identity) -> None:
        """Write *identity* if its number is free; afterwards the book knows whose it is."""
        while True:
            try:
                self._written[identity.id] = await self._publisher.create(identity)
            except KeyTaken:
                entry = await self._bus.get(IDENTITIES, str(identity.id))
                if entry is None:
                    continue  # released at this moment
                self._written[identity.id] = entry.revision
                self.book.learn(entry.value)
            else:
                self.book.learn(identity)
            return

    async def _changed(self, numbers: list[int]) -> bool:
        """Whether the bucket says other things about *numbers* than the book; then the book learns them."""
        if not numbers:
            return False
        known = [self.book.labels(number) for number in numbers]
        await self.refresh()
        return known != [self.book.labels(number) for number in numbers]

    async def _close(self, before: list[int]) -> None:
        """Retire those of *before* that became free while a number behind them was taken.

        Another instance would stop there and give the set a second number; if it just did, the
        book knows both and the first of the sequence counts.
        """
        if before:
            await self.refresh()
        for each in before:
            if self.book.labels(each) is None:
                await self._create(_retired(each))

    def _learn(self, number: int, identity: Identity | None) -> None:
        if identity is None:
            self.book.forget(number)
        else:
            self.book.learn(identity)


def _retired(number: int) -> Identity:
    return Identity(id=number, labels=())
