"""Keep bucket ``identities`` equal to what endpoints need."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from cirri.identity.allocator import Allocator
from cirri.identity.book import Book, LabelSet
from cirri.identity.demand import Demand
from cirri.kv import Bus, BusError, Publisher
from cirri.labels import SPACE, IdentitiesExhausted, InvalidLabelFilter, LabelFilter, Space
from cirri.model import Endpoint, Identity

RELEASE_S = 2.0
"""How long a number outlives its last use: a pod that is replaced gets its predecessor's."""

FOUND_S = 10.0
"""The same for numbers found in the bucket at the start, whose endpoints may not have reported yet."""

AT_ONCE = 64
"""Label sets that are given numbers at the same time."""


class Keeper:
    """Decides from the tables' contents; *now* is a clock in seconds.

    *refresh* makes sure that everything the bucket holds has been told to :meth:`identity`.
    """

    def __init__(
        self,
        bus: Bus,
        publisher: Publisher[Identity],
        *,
        now: Callable[[], float],
        refresh: Callable[[], Awaitable[None]],
        space: Space = SPACE,
        log: Callable[..., Any] = lambda *_, **__: None,
    ) -> None:
        self.book = Book(space)
        self.demand = Demand(LabelFilter.parse())
        self.allocator = Allocator(bus, publisher, self.book, self.demand)
        self.errors: dict[LabelSet, str] = {}
        """Label sets without a number, and why."""
        self.filter_error = ""
        self._now, self._log, self._refresh = now, log, refresh
        self._user_filter = ""
        self._unused: dict[int, float] = {}
        """Numbers without a use, and when they are to be released."""
        self._news = True
        """Something happened that may have ended the use of a number."""
        self._missing: set[LabelSet] = set()
        """Label sets in use that have no number yet."""

    def found(self, identities: Iterable[Identity]) -> None:
        """Take over what the bucket holds at the start."""
        for identity in identities:
            self.book.learn(identity)
            self._unused[identity.id] = self._now() + FOUND_S

    def configure(self, data: Mapping[str, str], endpoints: Mapping[str, Endpoint]) -> None:
        """Take over the cluster's label filter; one that cannot be understood changes nothing."""
        user = data.get("labels", "")
        if user == self._user_filter:
            return
        try:
            label_filter = LabelFilter.parse(user.split())
        except InvalidLabelFilter as error:
            self.filter_error = str(error)
            self._log("label filter refused", error=str(error))
            return
        self.filter_error, self._user_filter = "", user
        self.demand.refilter(label_filter, endpoints)
        self._news = True
        self._log("label filter changed", labels=user)

    def endpoint(self, key: str, endpoint: Endpoint | None) -> None:
        """Take over an endpoint; None: it is gone."""
        self._news = True
        self.demand.update(key, endpoint)

    def identity(self, number: int, identity: Identity | None) -> None:
        """Take over what the bucket says about *number*, whoever wrote it."""
        self._news = True
        if identity is None:
            self.book.forget(number)
        else:
            self.book.learn(identity)

    async def allocate(self) -> None:
        """Give every label set in use a number; those that cannot have one stay for the next call."""
        fresh = self.demand.take_fresh() | self.book.take_orphans()
        self._missing = {labels for labels in self._missing | fresh if self._lacks(labels)}
        # Those whose numbers are in force somewhere come first: nobody else may get these.
        missing = sorted(self._missing, key=lambda labels: not self.demand.reported(labels))
        for start in range(0, len(missing), AT_ONCE):
            batch = missing[start : start + AT_ONCE]
            await asyncio.gather(*(self._allocate(labels) for labels in batch))
        self._missing = set(filter(self._lacks, self._missing))
        self.errors = {labels: why for labels, why in self.errors.items() if self.demand.wants(labels)}

    async def release(self, *, settled: bool) -> None:
        """Release numbers that have been out of use for long enough.

        *settled*: every node has reported all its endpoints; otherwise nothing is known to be unused.
        Raises: BusError.
        """
        now = self._now()
        if not self._news and not self._unused:
            return
        self._news = False
        unused = {number for number in self.book.all() if not self._in_use(number)}
        self._unused = {number: self._unused.get(number, now + RELEASE_S) for number in unused}
        if not settled:
            return
        if due := [number for number, when in self._unused.items() if when <= now]:
            # Another instance may have passed one of them a moment ago, or do so at this moment.
            await self._refresh()
            due = [number for number in due if not self._in_use(number)]
            for number in due:
                await self.allocator.release(number)
                self._unused.pop(number, None)
            await self._refresh()
            for number in due:
                await self.allocator.keep_closed(number)

    async def _allocate(self, labels: LabelSet) -> None:
        try:
            number = await self.allocator.allocate(labels, self.demand.reported(labels))
        except IdentitiesExhausted as error:
            if labels not in self.errors:
                self._log("no identity", error=str(error))
            self.errors[labels] = str(error)
            return
        except BusError as error:
            self._log("no identity yet", labels=labels, error=str(error))
            return
        self.errors.pop(labels, None)
        self._unused.pop(number, None)

    def _lacks(self, labels: LabelSet) -> bool:
        return self.demand.wants(labels) and self.book.number(labels) is None

    def _in_use(self, number: int) -> bool:
        labels = self.book.labels(number)
        if not labels:
            return self.book.passed(number) or self.demand.holds(number)
        if self.book.surplus(number):
            return False
        return self.demand.wants(labels) or self.demand.holds(number)
