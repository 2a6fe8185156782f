"""Which number belongs to which label set, as far as is known.  Pure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from cirri.identity.demand import LabelSet
from cirri.labels import Space, probes, space_of
from cirri.model import Identity


class Book:
    """Numbers by label set and the other way round; *space* gives the numbers that a set may have.

    Whoever looks for a set's number tries the set's numbers in order and stops at a free one.  So a
    number must not become free while a set has its own number further on: it is retired instead.
    """

    def __init__(self, space: Callable[[LabelSet], Space] = space_of) -> None:
        self._space = space
        self._labels: dict[int, LabelSet] = {}
        self._numbers: dict[LabelSet, list[int]] = {}
        self._passed: dict[int, set[int]] = {}
        self._orphans: set[LabelSet] = set()
        self._touched: set[int] = set()

    def __len__(self) -> int:
        return len(self._numbers)

    def learn(self, identity: Identity) -> None:
        """*identity* is in the bucket."""
        if self._labels.get(identity.id) == identity.labels:
            return
        self.forget(identity.id)
        labels = tuple(map(sys.intern, identity.labels))  # few labels are in very many sets
        self._labels[identity.id] = labels
        self._touched.add(identity.id)
        if not labels:
            return
        known = self._numbers.setdefault(labels, [])
        known.append(identity.id)
        self._touched.update(known)
        if len(known) > 1:
            order = list(self.order(labels))
            known.sort(key=lambda number: order.index(number) if number in order else len(order))
        for number in self.before(identity.id, labels):
            self._passed.setdefault(number, set()).add(identity.id)

    def forget(self, number: int) -> None:
        """*number* is not in the bucket."""
        labels = self._labels.pop(number, None)
        if not labels:
            return
        known = self._numbers[labels]
        known.remove(number)
        self._touched.update(known)
        if not known:
            del self._numbers[labels]
            self._orphans.add(labels)
        for each in self.before(number, labels):
            passed = self._passed[each]
            passed.discard(number)
            if not passed:
                del self._passed[each]
                self._touched.add(each)

    def take_touched(self) -> set[int]:
        """Numbers of which something was learnt since the last call that may have ended their use."""
        taken, self._touched = self._touched, set()
        return taken

    def take_orphans(self) -> set[LabelSet]:
        """Label sets that lost their number since the last call, whoever released it."""
        taken, self._orphans = self._orphans, set()
        return taken

    def labels(self, number: int) -> LabelSet | None:
        """Whose *number* is: () retired, None free."""
        return self._labels.get(number)

    def number(self, labels: LabelSet) -> int | None:
        """The number of *labels*; the first of its sequence if it has several."""
        known = self._numbers.get(labels)
        return known[0] if known else None

    def numbers(self, labels: LabelSet) -> list[int]:
        """Every number of *labels*, in the order of its sequence."""
        return list(self._numbers.get(labels, ()))

    def surplus(self, number: int) -> bool:
        """Whether *number* is a second one of its label set."""
        labels = self._labels.get(number)
        return bool(labels) and self.number(labels or ()) != number

    def passed(self, number: int) -> bool:
        """Whether a set that has another number would stop at *number* if it were free."""
        return number in self._passed

    def order(self, labels: LabelSet) -> Iterator[int]:
        """The numbers that *labels* may have, in the order in which they are tried."""
        return probes(labels, self._space(labels))

    def before(self, number: int, labels: LabelSet) -> list[int]:
        """Numbers that *labels* tries before *number*; none if it never tries that one."""
        found: list[int] = []
        for each in self.order(labels):
            if each == number:
                return found
            found.append(each)
        return []
