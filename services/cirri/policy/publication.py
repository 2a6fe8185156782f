"""Write what was compiled, in an order in which no reader misses anything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from cirri.engine import Compiler, Delta
from cirri.kv import Publisher
from cirri.model import Compiled, PolicyEntry, SelectorSet


class Publication:
    """The two buckets; only what changed is written."""

    def __init__(self, selectors: Publisher[SelectorSet], policies: Publisher[PolicyEntry]) -> None:
        self._selectors, self._policies = selectors, policies

    async def whole(self, compiler: Compiler, resources: int) -> None:
        """Make everything that *compiler* has the whole state.  Raises: BusError."""
        await asyncio.gather(*map(self._selectors.put, compiler.sets.values()))
        entries = [PolicyEntry(subject=policy) for policy in compiler.policies.values()]
        await self._policies.replace([*entries, self._marker(resources)])
        await self._selectors.replace(compiler.sets.values())

    async def write(self, delta: Delta, *beside: Awaitable[None]) -> None:
        """Write a delta, and wait for what is asked for *beside* it, which is begun after the writes.

        Raises: BusError; the publishers keep what they could not write.
        """
        # Sent in this order over one connection; the marker waits for the acknowledgements.
        await asyncio.gather(
            *map(self._selectors.put, delta.selectors.values()),
            *(self._policies.put(PolicyEntry(subject=policy)) for policy in delta.policies.values()),
            *(self._policies.delete(str(identity)) for identity in delta.removed_policies),
            *beside,
        )
        await asyncio.gather(*map(self._selectors.delete, delta.removed_selectors))

    async def mark(self, resources: int) -> tuple[int, int]:
        """Say that everything up to revision *resources* is in; what was said.  Raises: BusError."""
        marker = self._marker(resources)
        await self._policies.put(marker)
        return resources, marker.compiled.selectors if marker.compiled else 0

    def _marker(self, resources: int) -> PolicyEntry:
        return PolicyEntry(compiled=Compiled(resources=resources, selectors=self._selectors.revision))
