"""What changed in several tables, for a service that decides from all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from cirri.kv.table import Table, _Changes


class News:
    """Collects the changed keys of *tables* (by name) until they are taken.

    The first news comes when every table is ready (or those to *wait_for*), and names every key.  A key
    that a table has folded in is in the news at once: after ``table.caught_up()`` nothing older is missing.
    """

    def __init__(self, tables: Mapping[str, Table[Any]], *, wait_for: Iterable[str] | None = None) -> None:
        self._tables = dict(tables)
        self._wait_for = self._tables.keys() if wait_for is None else tuple(wait_for)
        self._event = asyncio.Event()
        self._readers = {name: _Changes() for name in tables}
        self._first = True
        for name, reader in self._readers.items():
            reader.event = self._event
            self._tables[name]._readers.add(reader)

    @property
    def pending(self) -> bool:
        """Whether there is something to take."""
        return self._event.is_set()

    async def next(self, timeout_s: float | None = None) -> dict[str, set[str]]:
        """Changed keys by table; none at all if *timeout_s* passed before there were any."""
        if self._first:
            for name in self._wait_for:
                await self._tables[name].ready.wait()
            self._first = False
            self.take()
            return {name: set(table) for name, table in self._tables.items()}
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            pass
        return self.take()

    def take(self) -> dict[str, set[str]]:
        """What is pending now, without waiting."""
        self._event.clear()
        taken = {}
        for name, reader in self._readers.items():
            taken[name], reader.keys = reader.keys, set()
        return taken

    def close(self) -> None:
        """Collect no more."""
        for name, reader in self._readers.items():
            self._tables[name]._readers.discard(reader)
