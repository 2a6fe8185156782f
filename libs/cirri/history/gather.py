"""Tables put together: what is small and comes often becomes one table that holds each end once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cirri.history.rows import Rows, Table, joined

POINTERS: dict[str, tuple[str, ...]] = {
    "ends": ("source_end", "destination_end"),
    "names": ("source_names", "destination_names"),
    "services": ("source_service", "destination_service"),
    "rules": ("rule_ref",),
    "l7": ("l7",),
    "processes": ("processes",),
}
"""Field of :class:`Table` -> the columns that point into it, by index + 1."""
LIMITS = {"processes": 0xFFFF}
"""Items of a field that its columns can point to, where that may be too few: of the rest nothing is known."""


class Gathering:
    """Rows of one process, in the order in which they are added, with tables of their own."""

    def __init__(self, node: str, instance: int) -> None:
        self._node, self._instance = node, instance
        self._items: dict[str, list[Any]] = {field: [] for field in POINTERS}
        self._known: dict[str, dict[int, int]] = {field: {} for field in POINTERS}
        self._parts: list[Rows] = []
        self.count = 0
        """Rows in it."""

    def add(self, table: Table, which: Any = None) -> None:
        """Take over the rows of *table*, or those that *which* (a mask or indexes) chooses."""
        rows = table.rows.copy() if which is None else table.rows[which]
        if not len(rows):
            return
        for field, columns in POINTERS.items():
            items: Sequence[Any] = getattr(table, field)
            if not items:
                continue
            used = np.zeros(len(items) + 1, bool)
            for column in columns:
                used[rows[column]] = True
            used[0] = False
            mine = np.zeros(len(items) + 1, np.uint32)
            for index in np.flatnonzero(used).tolist():
                mine[index] = self._index(field, items[index - 1])
            mine[mine > LIMITS.get(field, mine.max())] = 0
            for column in columns:
                rows[column] = mine[rows[column]]
        self._parts.append(rows)
        self.count += len(rows)

    def table(self) -> Table:
        """All of it."""
        if len(self._parts) != 1:
            self._parts = [joined(self._parts)]
        lists = {field: tuple(items) for field, items in self._items.items()}
        return Table(self._node, self._instance, self._parts[0], **lists)

    def _index(self, field: str, item: Any) -> int:
        """By identity: whoever makes tables gives the same objects again, and equal ones do no harm."""
        known, items = self._known[field], self._items[field]
        if (index := known.get(id(item))) is None:
            items.append(item)
            index = known[id(item)] = len(items)
        return index
