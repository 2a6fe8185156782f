"""Write what was compiled, in an order in which no reader misses anything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

from cirri.engine import Compiler, Delta
from cirri.kv import BusRefused, Publisher, ValueTooLarge
from cirri.kv.wire import encode
from cirri.model import Compiled, PolicyCondition, PolicyEntry, SelectorSet
from cirri.model.policy import REVISION_KEY

T = TypeVar("T")

Conditions = Mapping[str, PolicyCondition | None]


class Publication:
    """The three buckets; only what changed is written."""

    def __init__(
        self,
        selectors: Publisher[SelectorSet],
        policies: Publisher[PolicyEntry],
        conditions: Publisher[PolicyCondition],
    ) -> None:
        self._selectors, self._policies, self._conditions = selectors, policies, conditions
        self.too_large: dict[str, str] = {}
        """Values that no bucket holds, by bucket and key, and a sentence about each."""
        self.marked = Compiled(resources=0, selectors=0)
        """What the marker says."""

    async def start(self) -> None:
        """Read what is stored.  Waits for the bus."""
        await asyncio.gather(*(one.start() for one in (self._selectors, self._policies, self._conditions)))
        entry = self._policies.stored.get(REVISION_KEY)
        if entry is not None and entry.compiled is not None:
            self.marked = entry.compiled

    @property
    def said(self) -> Mapping[str, PolicyCondition]:
        """What is said about objects now, by key."""
        return self._conditions.stored

    @property
    def selectors(self) -> int:
        """The last revision of bucket ``selectors`` that was written."""
        return self._selectors.revision

    async def whole(
        self, compiler: Compiler, conditions: Conditions, resources: Callable[[], int], identities: int
    ) -> None:
        """Make everything that *compiler* has the whole state, up to these revisions.  Raises: BusError."""
        self.too_large.clear()
        sets = self._that_fit(self._selectors, compiler.sets.values())
        subjects = [PolicyEntry(subject=policy) for policy in compiler.policies.values()]
        entries = self._that_fit(self._policies, subjects)
        for one in sets:
            await self._selectors.post(one)
        await self._selectors.settled()
        marker = Compiled(resources=resources(), selectors=self.selectors, identities=identities)
        await self._policies.replace([*entries, PolicyEntry(compiled=marker)])
        self.marked = marker
        await self._selectors.replace(sets)
        await self._conditions.replace(filter(None, conditions.values()))

    async def write(self, delta: Delta, conditions: Conditions, *beside: Awaitable[None]) -> None:
        """Write a delta, and wait for what is asked for *beside* it, which is begun after the writes.

        Raises: BusError; the publishers keep what they could not write.
        """
        # Sent in this order over one connection; the marker waits for the acknowledgements.
        for one in delta.selectors.values():
            await self._post(self._selectors, one)
        for policy in delta.policies.values():
            await self._post(self._policies, PolicyEntry(subject=policy))
        for condition in filter(None, conditions.values()):
            await self._post(self._conditions, condition)
        await asyncio.gather(
            self._selectors.settled(),
            self._policies.settled(),
            *(self._policies.delete(str(identity)) for identity in delta.removed_policies),
            *(self._conditions.delete(key) for key, said in conditions.items() if said is None),
            *beside,
        )
        if behind := self._selectors.behind + self._policies.behind:
            raise BusRefused("the policies", 0, f"{behind} values are not stored")
        await asyncio.gather(*map(self._selectors.delete, delta.removed_selectors))
        for gone in (
            *(_name(self._policies, str(identity)) for identity in delta.removed_policies),
            *(_name(self._selectors, key) for key in delta.removed_selectors),
        ):
            self.too_large.pop(gone, None)

    async def mark(self, resources: int, identities: int) -> None:
        """Say that everything up to these revisions is in.  Raises: BusError."""
        marker = Compiled(resources=resources, selectors=self.selectors, identities=identities)
        await self._policies.put(PolicyEntry(compiled=marker))
        self.marked = marker

    async def _post(self, publisher: Publisher[T], value: T) -> None:
        """Send *value*, or note that no bucket holds it: nodes stay with what they have."""
        name = _name(publisher, publisher.bucket.key(value))
        try:
            await publisher.post(value)
        except ValueTooLarge as error:
            self.too_large[name] = str(error)
        else:
            self.too_large.pop(name, None)

    def _that_fit(self, publisher: Publisher[T], values: Iterable[T]) -> list[T]:
        """Those of *values* that a bucket holds; the others are noted."""
        found = []
        for value in values:
            try:
                encode(publisher.bucket, value)
            except ValueTooLarge as error:
                self.too_large[_name(publisher, publisher.bucket.key(value))] = str(error)
            else:
                found.append(value)
        return found


def _name(publisher: Publisher[T], key: str) -> str:
    return f"{publisher.bucket.name}/{key}"
