"""The newest flows of a node, in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from cirri.history.gather import Gathering
from cirri.history.rows import Table

CHUNK = 4096
"""Rows that share their tables: few enough to be let go together, many enough for tables not to count."""


class Ring:
    """The last *capacity* rows, as tables; older ones are let go."""

    def __init__(self, capacity: int, node: str, instance: int) -> None:
        self._node, self._instance = node, instance
        self._chunks: deque[Table] = deque()
        self._open = Gathering(node, instance)
        self._rows = 0
        self.seen = 0
        """Rows ever taken."""
        self.resize(capacity)

    def resize(self, capacity: int) -> None:
        """Hold *capacity* rows from now on."""
        self.capacity = capacity
        self._chunk = max(1, min(CHUNK, (capacity + 1) // 8))
        self._let_go()

    @property
    def held(self) -> int:
        """Rows that can be had."""
        return min(self._rows, self.capacity)

    def take(self, table: Table) -> None:
        """Add the rows of *table*, which nobody changes any more."""
        count = len(table.rows)
        self.seen += count
        self._rows += count
        if 2 * count >= self._chunk:
            self._close()
            self._chunks.append(table)
        else:
            self._open.add(table)
            if self._open.count >= self._chunk:
                self._close()
        self._let_go()

    def tables(self, *, newest_first: bool = False) -> Iterator[Table]:
        """What is held now, table by table; the rows within each are always oldest first."""
        chunks = [*self._chunks, *([self._open.table()] if self._open.count else [])]
        surplus = self._rows - self.held
        if surplus and chunks:
            chunks[0] = replace(chunks[0], rows=chunks[0].rows[surplus:])
        return iter(chunks[::-1] if newest_first else chunks)

    def _close(self) -> None:
        if self._open.count:
            self._chunks.append(self._open.table())
            self._open = Gathering(self._node, self._instance)

    def _let_go(self) -> None:
        while self._chunks and self._rows - len(self._chunks[0].rows) >= self.capacity:
            self._rows -= len(self._chunks.popleft().rows)
