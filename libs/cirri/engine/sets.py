"""The peer selectors in use: whom each one selects, and the address prefixes that need an identity for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from cirri.engine.index import Index
from cirri.engine.select import Selector
from cirri.labels import CIDR, prefix_labels, prefix_of
from cirri.labels.label import Label
from cirri.model import SelectorSet


class Sets:
    """Counts the users of each selector; what changed is told by :meth:`flush`."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._users: Counter[str] = Counter()
        self._dropped: list[str] = []
        self._dirty: set[str] = set()
        self._needed: Counter[str] = Counter()
        self._known: Counter[str] = Counter()
        self._missing: set[str] = set()
        self.current: dict[str, SelectorSet] = {}
        """As of the last :meth:`flush`, by key."""

    @property
    def missing(self) -> frozenset[str]:
        """Prefixes that selectors in use tell apart and that have no identity of their own."""
        return frozenset(self._missing)

    def use(self, selector: Selector) -> None:
        """Count one more user of *selector*."""
        self._index.acquire(selector)
        self._users[selector.key] += 1
        if self._users[selector.key] == 1:
            self._dirty.add(selector.key)
            for prefix in selector.prefixes:
                self._needed[prefix] += 1
                if not self._known[prefix]:
                    self._missing.add(prefix)

    def drop(self, key: str) -> None:
        """Count one user less, with the next :meth:`flush`: until then it may be used again."""
        self._dropped.append(key)

    def changed(self, keys: Iterable[str]) -> None:
        """Note that the selectors with *keys* select others now, if they are in use."""
        self._dirty.update(key for key in keys if key in self._users)

    def learn(self, labels: frozenset[str]) -> None:
        """Note that there is an identity with *labels*."""
        if prefix := own_prefix(labels):
            self._known[prefix] += 1
            self._missing.discard(prefix)

    def unlearn(self, labels: frozenset[str]) -> None:
        """Note that there is one identity less with *labels*."""
        if not (prefix := own_prefix(labels)):
            return
        self._known[prefix] -= 1
        if not self._known[prefix]:
            del self._known[prefix]
            if prefix in self._needed:
                self._missing.add(prefix)

    def flush(self) -> tuple[Mapping[str, SelectorSet], frozenset[str]]:
        """Sets that are new or other than before, and keys of those that are gone."""
        for key in self._dropped:
            self._drop(key)
        self._dropped.clear()
        changed, gone = {}, set()
        for key in self._dirty:
            if key not in self._users:
                if self.current.pop(key, None):
                    gone.add(key)
                continue
            selector = self._index.selector(key)
            one = SelectorSet(
                key=key,
                text=selector.summary,
                identities=self._index.selected(key).serialize(),
                prefixes=selector.prefixes,
                name=selector.name,
            )
            if self.current.get(key) != one:
                changed[key] = self.current[key] = one
        self._dirty.clear()
        return changed, frozenset(gone)

    def _drop(self, key: str) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self._dirty.add(key)
            for prefix in self._index.selector(key).prefixes:
                self._needed[prefix] -= 1
                if not self._needed[prefix]:
                    del self._needed[prefix]
                    self._missing.discard(prefix)
        self._index.release(key)


def own_prefix(labels: frozenset[str]) -> str:
    """The prefix whose identity has exactly *labels*; "" if they are another's."""
    if len(labels) != 2:
        return ""
    for text in labels:
        source, key, _ = Label.parse(text)
        if source == CIDR:
            try:
                prefix = prefix_of(key)
            except ValueError:
                return ""
            return str(prefix) if labels == frozenset(prefix_labels(prefix)) else ""
    return ""
