"""The tables that say who needs numbers, and how far they can be relied on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cirri.identity.needs import Needs
from cirri.kv import BusError, Table
from cirri.kv.news import News
from cirri.labels.apiserver import SERVICE_NAMESPACE
from cirri.model import ENDPOINTS, NODES, RESOURCES, SELECTORS, resource_key
from cirri.model.bucket import token
from cirri.model.config import CONFIG, config_data


class Sources:
    """Feeds *needs* with what *table* (of a bucket and a pattern) follows.

    Only the configuration and the endpoints are waited for: the policy service needs the identities of
    endpoints before it can say which prefixes need one.
    """

    def __init__(self, table: Callable[..., Table[Any]], needs: Needs) -> None:
        self._needs = needs
        self._config = table(RESOURCES, CONFIG)
        self._endpoints = table(ENDPOINTS)
        self._selectors = table(SELECTORS)
        self._nodes = table(NODES)
        self._objects = table(RESOURCES, resource_key("Node"))
        self._slices = table(RESOURCES, resource_key("EndpointSlice", SERVICE_NAMESPACE))
        self._tables = {
            "config": self._config,
            "endpoints": self._endpoints,
            "selectors": self._selectors,
            "nodes": self._nodes,
            "objects": self._objects,
            "slices": self._slices,
        }
        self._news = News(self._tables, wait_for=("config", "endpoints"))
        self._joined = False

    async def next(self, timeout_s: float | None = None) -> None:
        """Take over what is new, at the latest after *timeout_s*."""
        self._tell(await self._news.next(timeout_s))

    async def caught_up(self) -> None:
        """Take over everything that the store holds now, as far as it can be read."""

        async def one(table: Table[Any]) -> None:
            with suppress(BusError):  # nobody has made the bucket yet
                await table.caught_up()

        await asyncio.gather(*map(one, self._tables.values()))
        self._tell(self._news.take())

    @property
    def ready(self) -> bool:
        """Whether every table has been complete once."""
        return all(table.ready.is_set() for table in self._tables.values())

    @property
    def settled(self) -> bool:
        """Whether everybody who says what is there has said that this is all."""
        if not self.ready or any(table.stale for table in self._tables.values()):
            return False
        return self._nodes.keys() <= self._endpoints.complete & self._nodes.complete

    @property
    def whole(self) -> bool:
        """Whether every node that exists has said all it has."""
        names = {token(node.name) for node in self._objects.values()}
        return names <= self._endpoints.complete & self._nodes.complete

    def _tell(self, news: dict[str, set[str]]) -> None:
        anew = self._needs.configure(config_data(self._config))
        for key in {*news["endpoints"], *(self._endpoints if anew else ())}:
            self._needs.endpoint(key, self._endpoints.get(key))
        for key in news["selectors"]:
            self._needs.selector(key, self._selectors.get(key))
        # What a node's labels are follows from three tables: none of them is read before all are known.
        parts = (self._nodes, self._objects, self._slices)
        if not all(table.ready.is_set() for table in parts):
            return
        if anew or not self._joined or news["nodes"] or news["objects"] or news["slices"]:
            self._joined = True
            self._needs.nodes(self._nodes.values(), self._objects.values(), self._slices.values())
