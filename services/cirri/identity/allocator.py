"""Take and release numbers in the bucket, safe against another instance that does the same."""

from __future__ import annotations

from collections.abc import Iterable

from cirri.identity.book import Book
from cirri.identity.demand import Demand, LabelSet
from cirri.kv import Bus, KeyTaken, Publisher, StaleRevision
from cirri.labels import IdentitiesExhausted
from cirri.model import IDENTITIES, Identity


class Allocator:
    """Writes bucket ``identities``; *book* is what it knows, *demand* what is in use."""

    def __init__(self, bus: Bus, publisher: Publisher[Identity], book: Book, demand: Demand) -> None:
        self._bus = bus
        self._publisher = publisher
        self.book = book
        self._demand = demand

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
        entry = await self._bus.get(IDENTITIES, key)
        if entry is None:
            self.book.forget(number)
            return
        if entry.value.labels != self.book.labels(number):
            self.book.learn(entry.value)  # somebody was faster
            return
        try:
            if self.book.passed(number) or self._demand.holds(number):
                await self._bus.put(IDENTITIES, _retired(number), revision=entry.revision)
                self.book.learn(_retired(number))
                return
            await self._bus.delete(IDENTITIES, key, revision=entry.revision)
        except StaleRevision:
            return
        self.book.forget(number)

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
                await self._publisher.create(identity)
            except KeyTaken:
                entry = await self._bus.get(IDENTITIES, str(identity.id))
                if entry is None:
                    continue  # released at this moment
                self.book.learn(entry.value)
            else:
                self.book.learn(identity)
            return

    async def _changed(self, numbers: list[int]) -> bool:
        """Whether the bucket says other things about *numbers* than the book; then the book learns them."""
        changed = False
        for number in numbers:
            known = self.book.labels(number)
            entry = await self._bus.get(IDENTITIES, str(number))
            if entry is None:
                self.book.forget(number)
            else:
                self.book.learn(entry.value)
            changed = changed or self.book.labels(number) != known
        return changed

    async def _close(self, before: list[int]) -> None:
        """Retire those of *before* that became free while a number behind them was taken.

        Another instance would stop there and give the set a second number; if it just did, the
        book knows both and the first of the sequence counts.
        """
        for each in before:
            entry = await self._bus.get(IDENTITIES, str(each))
            if entry is not None:
                self.book.learn(entry.value)
                continue
            self.book.forget(each)
            await self._create(_retired(each))


def _retired(number: int) -> Identity:
    return Identity(id=number, labels=())
