"""Somebody who hears all that is said on the bus, in order, and objects when a promise is not kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from cirri.kv import Bus, Message
from cirri.kv.stream import DELETED, OPERATION
from cirri.kv.wire import Bad, decode, is_marker
from cirri.labels import prefix_labels
from cirri.model import IDENTITIES, POLICIES, SELECTORS, Bucket, Compiled, Identity, PolicyEntry, SelectorSet
from cirri.model.policy import REVISION_KEY

BUCKETS: dict[str, Bucket[Any]] = {each.name: each for each in (IDENTITIES, POLICIES, SELECTORS)}


@dataclass
class Witness:
    """Follows three buckets as one stream, which no service can: ``$KV.>`` in the order of the server."""

    identities: dict[str, Identity] = field(default_factory=dict)
    selectors: dict[str, SelectorSet] = field(default_factory=dict)
    marker: Compiled = field(default_factory=lambda: Compiled(resources=0, selectors=0))
    heard: list[tuple[str, str]] = field(default_factory=list)
    """Bucket and key of every write, oldest first."""
    broken: list[str] = field(default_factory=list)
    """Promises that were not kept."""
    told: Callable[[], None] = lambda: None
    """Called after each write."""

    async def listen(self, bus: Bus) -> None:
        """Take over what is stored, then follow it."""
        await bus.subscribe("$KV.>", self._hear)
        self.identities = {e.key: e.value for e in await bus.entries(IDENTITIES)}
        self.selectors = {e.key: e.value for e in await bus.entries(SELECTORS)}

    def forget(self) -> None:
        """The store was emptied."""
        self.identities.clear()
        self.selectors.clear()
        self.marker = Compiled(resources=0, selectors=0)

    def _hear(self, message: Message) -> None:
        _, name, key = message.subject.split(".", 2)
        if name not in BUCKETS or is_marker(key):
            return
        deleted = (message.headers or {}).get(OPERATION) in DELETED
        value = None if deleted else decode(BUCKETS[name], key, message.data)
        assert not isinstance(value, Bad)
        self.heard.append((name, key))
        if name == POLICIES.name:
            if key == REVISION_KEY and isinstance(value, PolicyEntry) and value.compiled is not None:
                self._marked(value.compiled)
        else:
            known: dict[str, Any] = self.identities if name == IDENTITIES.name else self.selectors
            known.pop(key, None)
            if value is not None:
                known[key] = value
        self.told()

    def _marked(self, marker: Compiled) -> None:
        if marker.resources > self.marker.resources and (lacking := self.lacking()):
            self.broken.append(f"{marker} is said while there is no identity for {sorted(lacking)}")
        self.marker = marker

    def lacking(self) -> set[str]:
        """Prefixes that selectors tell apart and that have no identity."""
        labelled = {each.labels for each in self.identities.values()}
        wanted = {prefix for each in self.selectors.values() for prefix in each.prefixes}
        return {prefix for prefix in wanted if prefix_labels(ip_network(prefix)) not in labelled}
