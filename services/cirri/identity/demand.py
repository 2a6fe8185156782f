"""Which label sets and numbers are in use.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import TypeVar

LabelSet = tuple[str, ...]
Use = tuple[LabelSet, int]
"""A label set that needs a number (() if none does) and the number that it has in force (0: none)."""
Outer = TypeVar("Outer", bound=Hashable)
Inner = TypeVar("Inner", bound=Hashable)


class Demand:
    """Counts users (endpoints, selectors, nodes) by the label sets they need and the numbers they have."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[Use, ...]] = {}
        self._sets: dict[LabelSet, Counter[int]] = {}
        self._numbers: dict[int, Counter[LabelSet]] = {}
        self._fresh: set[LabelSet] = set()
        self._ended: set[LabelSet] = set()
        self._idle: set[int] = set()

    @property
    def sets(self) -> Iterable[LabelSet]:
        """Label sets that need a number."""
        return self._sets.keys()

    def use(self, user: str, uses: tuple[Use, ...] = ()) -> None:
        """From now on *user* uses exactly *uses*."""
        before = self._of.get(user, ())
        if before == uses:
            return
        for labels, number in uses:
            self._count(labels, number, 1)
        for labels, number in before:
            self._count(labels, number, -1)
        if uses:
            self._of[user] = uses
        else:
            del self._of[user]

    def take_fresh(self) -> set[LabelSet]:
        """Label sets that came into use since the last call."""
        taken, self._fresh = self._fresh, set()
        return {labels for labels in taken if labels in self._sets}

    def take_ended(self) -> tuple[set[LabelSet], set[int]]:
        """Label sets and numbers that went out of use since the last call, if only for a moment."""
        taken, self._ended, self._idle = (self._ended, self._idle), set(), set()
        return taken

    def wants(self, labels: LabelSet) -> bool:
        """Whether somebody needs a number for exactly *labels*."""
        return labels in self._sets

    def reported(self, labels: LabelSet) -> list[int]:
        """Numbers that users of *labels* have in force, the most common first."""
        return [number for number, _ in self._sets[labels].most_common() if number]

    def holds(self, number: int) -> bool:
        """Whether somebody has *number* in force, whatever it needs now."""
        return number in self._numbers

    def held_by_others(self, number: int, labels: LabelSet) -> bool:
        """Whether somebody who needs others than *labels* has *number* in force."""
        return any(other != labels for other in self._numbers.get(number, ()))

    def _count(self, labels: LabelSet, number: int, step: int) -> None:
        if labels:
            if labels not in self._sets:
                self._fresh.add(labels)
            if _step(self._sets, labels, number, step):
                self._ended.add(labels)
        if number and _step(self._numbers, number, labels, step):
            self._idle.add(number)


def _step(table: dict[Outer, Counter[Inner]], key: Outer, inner: Inner, step: int) -> bool:
    """Whether nothing is left of *key*."""
    counter = table.setdefault(key, Counter())
    counter[inner] += step
    if not counter[inner]:
        del counter[inner]
    if counter:
        return False
    del table[key]
    return True
