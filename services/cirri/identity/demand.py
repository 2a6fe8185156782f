"""Which label sets and numbers endpoints use.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

from cirri.labels import LabelFilter, canonical, reserved_number
from cirri.model import Endpoint

LabelSet = tuple[str, ...]
Outer = TypeVar("Outer", bound=Hashable)
Inner = TypeVar("Inner", bound=Hashable)


class Demand:
    """Counts endpoints by the label set that the filter leaves them and by the number they realized."""

    def __init__(self, label_filter: LabelFilter) -> None:
        self.filter = label_filter
        self._of: dict[str, tuple[LabelSet, int]] = {}
        self._sets: dict[LabelSet, Counter[int]] = {}
        self._numbers: dict[int, Counter[LabelSet]] = {}
        self._fresh: set[LabelSet] = set()

    @property
    def sets(self) -> Iterable[LabelSet]:
        """Label sets that need a number."""
        return self._sets.keys()

    def take_fresh(self) -> set[LabelSet]:
        """Label sets that came into use since the last call."""
        taken, self._fresh = self._fresh, set()
        return {labels for labels in taken if labels in self._sets}

    def update(self, key: str, endpoint: Endpoint | None) -> None:
        """Take over what endpoint *key* is now; None: it is gone."""
        if before := self._of.pop(key, None):
            self._count(*before, -1)
        if endpoint is not None:
            now = self._of[key] = (self._relevant(endpoint), endpoint.identity)
            self._count(*now, 1)

    def refilter(self, label_filter: LabelFilter, endpoints: Mapping[str, Endpoint]) -> None:
        """Count *endpoints* anew under another filter."""
        self.filter = label_filter
        for key in list(self._of):
            self.update(key, None)
        for key, endpoint in endpoints.items():
            self.update(key, endpoint)

    def wants(self, labels: LabelSet) -> bool:
        """Whether some endpoint has exactly *labels*."""
        return labels in self._sets

    def reported(self, labels: LabelSet) -> list[int]:
        """Numbers that endpoints with *labels* have in force, the most common first."""
        return [number for number, _ in self._sets[labels].most_common() if number]

    def holds(self, number: int) -> bool:
        """Whether some endpoint has *number* in force, whatever its labels are now."""
        return number in self._numbers

    def held_by_others(self, number: int, labels: LabelSet) -> bool:
        """Whether endpoints with other labels than *labels* have *number* in force."""
        return any(other != labels for other in self._numbers.get(number, ()))

    def _relevant(self, endpoint: Endpoint) -> LabelSet:
        labels = canonical(self.filter.relevant(endpoint.labels))
        return () if reserved_number(labels) else labels

    def _count(self, labels: LabelSet, number: int, step: int) -> None:
        if labels:
            if labels not in self._sets:
                self._fresh.add(labels)
            _step(self._sets, labels, number, step)
        if number:
            _step(self._numbers, number, labels, step)


def _step(table: dict[Outer, Counter[Inner]], key: Outer, inner: Inner, step: int) -> None:
    counter = table.setdefault(key, Counter())
    counter[inner] += step
    if not counter[inner]:
        del counter[inner]
    if not counter:
        del table[key]
