"""The tables that policy is compiled from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from cirri.engine import CONTEXT_KINDS, KINDS
from cirri.kv import Table
from cirri.kv.news import News
from cirri.labels import is_located
from cirri.model import IDENTITIES, RESOURCES, Resource, resource_key
from cirri.model.config import CONFIG, config_data
from cirri.policy.compilation import Compilation

Changed = dict[str, set[str]]


class Inputs:
    """Feeds *compilation* with what *table* (of a bucket and a pattern) follows."""

    def __init__(self, table: Callable[..., Table[Any]], compilation: Compilation) -> None:
        self._compilation = compilation
        self._objects: dict[str, Table[Resource]] = {
            kind: table(RESOURCES, resource_key(kind, "*")) for kind in (*KINDS, *CONTEXT_KINDS)
        }
        self._config: Table[Resource] = table(RESOURCES, CONFIG)
        self._identities = table(IDENTITIES)
        # Services and their backends come and go with pods: nobody asks up to which of them all is in force.
        self._counted = [self._objects[kind] for kind in (*KINDS, "CiliumCIDRGroup")] + [self._config]
        self._news = News({**self._objects, "config": self._config, "identities": self._identities})
        self._resyncs = 0
        self.identities = 0
        """The last revision of bucket ``identities`` that has been taken over."""
        self.moved = False
        """Whether identities of prefixes or nodes came or went, until somebody says that it was told."""

    async def next(self, timeout_s: float | None = None) -> bool:
        """Take over what is new, at the latest after *timeout_s*; whether there was anything."""
        return self._tell(await self._news.next(timeout_s))

    def take(self) -> bool:
        """Take over what is new now; whether there was anything."""
        return self._tell(self._news.take())

    async def caught_up(self) -> None:
        """Return when all that bucket ``resources`` holds at the time of the call has been read.

        Each kind is followed by itself: one may be behind a revision that another has read.
        Raises: BusError.
        """
        tables = (*self._objects.values(), self._config)
        await asyncio.gather(*(table.caught_up() for table in tables))

    @property
    def revision(self) -> int:
        """The last revision of policies, of groups of prefixes or of the configuration that has been read."""
        return max(table.revision for table in self._counted)

    def _tell(self, news: Changed) -> bool:
        compilation = self._compilation
        compilation.configure(config_data(self._config))
        for kind, table in self._objects.items():
            for key in news[kind]:
                known = table.get(key)
                compilation.resource(key, known, 0 if known is None else table.revision_of(key))
        for key in news["identities"]:
            compilation.identity(int(key), self._identities.get(key))
            self.moved = self.moved or is_located(int(key))
        self.identities = self._identities.revision
        self._recount()
        return any(news.values())

    def _recount(self) -> None:
        """Objects of a bucket that was made anew may be at other revisions without having changed."""
        policies = [self._objects[kind] for kind in KINDS]
        resyncs = sum(table.resyncs for table in policies)
        if resyncs == self._resyncs or any(table.stale for table in policies):
            return
        self._resyncs = resyncs
        for table in policies:
            for key in table:
                self._compilation.recount(key, table.revision_of(key))
