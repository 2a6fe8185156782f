"""Which identities each selector selects, kept up to date as both come and go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pyroaring import BitMap

from cirri.engine.select import ANY_SOURCE, LabelSet, Requirement, Selector, tokens


@dataclass(slots=True)
class _Column:
    """Identities that have one label name."""

    present: BitMap = field(default_factory=BitMap)
    values: dict[str, BitMap] = field(default_factory=dict)


@dataclass(slots=True)
class _Entry:
    selector: Selector
    users: int
    selected: BitMap


class Index:
    """Selectors on one side, identities on the other.

    A new identity is compared with the selectors that one of its labels leads to, a new selector
    is computed from the columns of the labels it names: neither walks over everything.
    """

    def __init__(self) -> None:
        self._labels: dict[int, frozenset[str]] = {}
        self._everyone = BitMap()
        self._columns: dict[tuple[str, str], _Column] = {}
        self._sources: dict[str, set[str]] = {}
        self._entries: dict[str, _Entry] = {}
        self._anchored: dict[str, set[str]] = {}

    def labels(self, identity: int) -> frozenset[str] | None:
        """Labels of *identity*; None if it is not known."""
        return self._labels.get(identity)

    def selected(self, key: str) -> BitMap:
        """Identities that the selector with *key* selects now.  Not to be changed by the caller."""
        return self._entries[key].selected

    def selector(self, key: str) -> Selector:
        """The selector with *key*."""
        return self._entries[key].selector

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def acquire(self, selector: Selector) -> bool:
        """Count one more user of *selector*; whether it is the first."""
        if entry := self._entries.get(selector.key):
            entry.users += 1
            return False
        self._entries[selector.key] = _Entry(selector, 1, self._evaluate(selector))
        for anchor in selector.anchors:
            self._anchored.setdefault(anchor, set()).add(selector.key)
        return True

    def release(self, key: str) -> bool:
        """Count one user less; whether it was the last and the selector is forgotten."""
        entry = self._entries[key]
        entry.users -= 1
        if entry.users:
            return False
        for anchor in entry.selector.anchors:
            keys = self._anchored[anchor]
            keys.discard(key)
            if not keys:
                del self._anchored[anchor]
        del self._entries[key]
        return True

    def add(self, identity: int, labels: Iterable[str]) -> list[str]:
        """Make *identity* known; keys of the selectors that select it."""
        known = LabelSet(labels)
        self._labels[identity] = frozenset(labels)
        self._everyone.add(identity)
        for (source, key), value in known.by_name.items():
            column = self._columns.setdefault((source, key), _Column())
            column.present.add(identity)
            column.values.setdefault(value, BitMap()).add(identity)
            self._sources.setdefault(key, set()).add(source)
        joined = []
        for key in self._candidates(known):
            entry = self._entries[key]
            if entry.selector.matches(known):
                entry.selected.add(identity)
                joined.append(key)
        return joined

    def remove(self, identity: int) -> list[str]:
        """Forget *identity*; keys of the selectors that selected it."""
        known = LabelSet(self._labels.pop(identity))
        left = [key for key in self._candidates(known) if identity in self._entries[key].selected]
        for key in left:
            self._entries[key].selected.discard(identity)
        self._everyone.discard(identity)
        for (source, key), value in known.by_name.items():
            column = self._columns[source, key]
            column.present.discard(identity)
            column.values[value].discard(identity)
            if not column.values[value]:
                del column.values[value]
            if not column.values:
                del self._columns[source, key]
                self._sources[key].discard(source)
        return left

    def _candidates(self, known: LabelSet) -> set[str]:
        found: set[str] = set()
        for token in tokens(known):
            found |= self._anchored.get(token, frozenset())
        return found

    def _evaluate(self, selector: Selector) -> BitMap:
        found = BitMap()
        for requirements in selector.alternatives:
            positive = [one for one in requirements if one.operator in {"In", "Exists"}]
            negative = [one for one in requirements if one.operator in {"NotIn", "DoesNotExist"}]
            matching = self._having(positive[0]) if positive else BitMap(self._everyone)
            for one in positive[1:]:
                matching &= self._having(one)
            for one in negative:
                matching -= self._having(one)
            found |= matching
        return found

    def _having(self, one: Requirement) -> BitMap:
        """Identities that have the key, for (Not)In with one of the values."""
        found = BitMap()
        sources = self._sources.get(one.key, ()) if one.source == ANY_SOURCE else (one.source,)
        for source in sources:
            if (column := self._columns.get((source, one.key))) is None:
                continue
            if one.operator in {"Exists", "DoesNotExist"}:
                found |= column.present
            for value in one.values:
                if value in column.values:
                    found |= column.values[value]
        return found
