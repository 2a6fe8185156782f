"""Which identities each selector selects, kept up to date as both come and go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field

from pyroaring import BitMap

from cirri.engine.select import ANY_SOURCE, Alternative, LabelSet, Requirement, Selector, Token, anchor
from cirri.engine.span import BITS, Span, Spans
from cirri.labels import PORT


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

    A new identity is compared with the alternatives that one of its labels or prefixes leads to, a new
    selector is computed from the columns of the labels it names: neither walks over everything.
    """

    def __init__(self) -> None:
        self._labels: dict[int, frozenset[str]] = {}
        self._everyone = BitMap()
        self._columns: dict[tuple[str, str], _Column] = {}
        self._sources: dict[str, set[str]] = {}
        self._spans = Spans()
        self._entries: dict[str, _Entry] = {}
        self._anchored: dict[Token, dict[str, list[Alternative]]] = {}
        """By token and selector: what must hold beside it, for each alternative that is anchored there."""
        self._lengths: dict[int, dict[int, int]] = {version: {} for version in BITS}
        self._renumbered: set[str] = set()

    def labels(self, identity: int) -> frozenset[str] | None:
        """Labels of *identity*; None if it is not known."""
        return self._labels.get(identity)

    def selected(self, key: str) -> BitMap:
        """Identities that the selector with *key* selects now.  Not to be changed by the caller."""
        return self._entries[key].selected

    def selector(self, key: str) -> Selector:
        """The selector with *key*."""
        return self._entries[key].selector

    def values(self, source: str, key: str) -> Set[str]:
        """Values that the label *source*:*key* has on some identity."""
        column = self._columns.get((source, key))
        return column.values.keys() if column else frozenset()

    def renumbered(self) -> set[str]:
        """Keys of ports by name (``tcp/http``) whose numbers in use may have changed since the last call."""
        found, self._renumbered = self._renumbered, set()
        return found

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def acquire(self, selector: Selector) -> bool:
        """Count one more user of *selector*; whether it is the first."""
        if entry := self._entries.get(selector.key):
            entry.users += 1
            return False
        self._entries[selector.key] = _Entry(selector, 1, self._evaluate(selector))
        for alternative in selector.alternatives:
            tokens, rest = anchor(alternative)
            for token in tokens:
                if (anchored := self._anchored.get(token)) is None:
                    anchored = self._anchored[token] = {}
                    self._count_length(token, 1)
                anchored.setdefault(selector.key, []).append(rest)
        return True

    def release(self, key: str) -> bool:
        """Count one user less; whether it was the last and the selector is forgotten."""
        entry = self._entries[key]
        entry.users -= 1
        if entry.users:
            return False
        for token in entry.selector.anchors:
            anchored = self._anchored[token]
            del anchored[key]
            if not anchored:
                del self._anchored[token]
                self._count_length(token, -1)
        del self._entries[key]
        return True

    def add(self, identity: int, labels: Iterable[str]) -> list[str]:
        """Make *identity* known; keys of the selectors that select it."""
        texts = frozenset(labels)
        known = LabelSet(texts)
        self._labels[identity] = texts
        self._everyone.add(identity)
        for name, value in known.by_name.items():
            if (column := self._columns.get(name)) is None:
                column = self._columns[name] = _Column()
                if name[0] != PORT:
                    self._sources.setdefault(name[1], set()).add(name[0])
            column.present.add(identity)
            if value in column.values:
                column.values[value].add(identity)
            else:
                column.values[value] = BitMap((identity,))
                if name[0] == PORT:
                    self._renumbered.add(name[1])
        for span in known.spans:
            self._spans.add(span, identity)
        joined = []
        for token in self._tokens(known):
            for key, rests in self._anchored[token].items():
                selected = self._entries[key].selected
                if identity not in selected and any(all(r.holds(known) for r in rest) for rest in rests):
                    selected.add(identity)
                    joined.append(key)
        return joined

    def remove(self, identity: int) -> list[str]:
        """Forget *identity*; keys of the selectors that selected it."""
        known = LabelSet(self._labels.pop(identity))
        left = []
        for token in self._tokens(known):
            for key in self._anchored[token]:
                selected = self._entries[key].selected
                if identity in selected:
                    selected.discard(identity)
                    left.append(key)
        self._everyone.discard(identity)
        for name, value in known.by_name.items():
            column = self._columns[name]
            column.present.discard(identity)
            column.values[value].discard(identity)
            if not column.values[value]:
                del column.values[value]
                if name[0] == PORT:
                    self._renumbered.add(name[1])
            if not column.values:
                del self._columns[name]
                self._sources.get(name[1], set()).discard(name[0])
        for span in known.spans:
            self._spans.discard(span, identity)
        return left

    def _tokens(self, known: LabelSet) -> Iterator[Token]:
        """Those of an identity's tokens that something is anchored at."""
        anchored = self._anchored
        for token in known.tokens():
            if token in anchored:
                yield token
        for span in known.spans:
            for length in self._lengths[span.version]:
                if length <= span.length and (wide := span.widened(length)) in anchored:
                    yield wide

    def _count_length(self, token: Token, change: int) -> None:
        """Keep count of the lengths of the prefixes that something is anchored at."""
        if not isinstance(token, Span):
            return
        lengths = self._lengths[token.version]
        lengths[token.length] = lengths.get(token.length, 0) + change
        if not lengths[token.length]:
            del lengths[token.length]

    def _evaluate(self, selector: Selector) -> BitMap:
        found = BitMap()
        for requirements in selector.alternatives:
            positive = [one for one in requirements if one.positive]
            matching = self._having(positive[0]) if positive else BitMap(self._everyone)
            for one in positive[1:]:
                matching &= self._having(one)
            for one in requirements:
                if not one.positive and matching:
                    matching -= self._having(one)
            found |= matching
        return found

    def _having(self, one: Requirement) -> BitMap:
        """Identities that have the key, for (Not)In with one of the values, for (Not)Within in the prefix."""
        if one.operator in {"Within", "NotWithin"}:
            return BitMap(list(self._spans.inside(one.span)))
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
