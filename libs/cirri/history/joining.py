"""Small tables of the stream as larger ones: a table costs a question as much as hundreds of rows.  Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TypeVar

from cirri.history.gather import Gathering
from cirri.history.rows import Table

ENOUGH = 4096
"""Rows of a table that is handed on."""

Thing = TypeVar("Thing", bound=Hashable)


class Joining:
    """Puts tables of the same process together, in which equal ends are one."""

    def __init__(self, enough: int = ENOUGH) -> None:
        self._enough = enough
        self._open: dict[tuple[str, int], Gathering] = {}
        self._known: dict[Hashable, Hashable] = {}

    def add(self, table: Table) -> Iterator[Table]:
        """Take *table*; what there is enough of comes back."""
        key = table.node, table.instance
        gathering = self._open.setdefault(key, Gathering(*key))
        gathering.add(
            Table(
                table.node,
                table.instance,
                table.rows,
                self._same(table.ends),
                self._same(table.names),
                self._same(table.services),
                self._same(table.rules),
                table.l7,
                self._same(table.processes),
            )
        )
        if gathering.count >= self._enough:
            yield self._open.pop(key).table()

    def rest(self) -> Iterator[Table]:
        """What is left."""
        while self._open:
            _, gathering = self._open.popitem()
            yield gathering.table()

    def _same(self, things: Sequence[Thing]) -> list[Thing]:
        """Equal things as the same object, which is how they are known again."""
        return [self._known.setdefault(each, each) for each in things]  # type: ignore[misc]
