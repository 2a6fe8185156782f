"""What a question is: it takes tables one by one, remembers sums alone, and has an answer at any time.

Order and cut of the tables do not matter, so the answer about a day is made while the day is read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeVar

import numpy as np

from cirri.history.rows import Table
from cirri.history.seen import Seen

Found = TypeVar("Found")
Answer_co = TypeVar("Answer_co", covariant=True)


class Question(Protocol[Answer_co]):
    """One of the questions."""

    def take(self, seen: Seen) -> None:
        """Take these rows into account."""

    def answer(self) -> Answer_co:
        """What there is to say of all rows so far."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which rows are asked about."""

    since_ns: int = 0
    until_ns: int = (1 << 64) - 1
    namespaces: Collection[str] | None = None
    """Of either end; None: all."""

    def of(self, table: Table) -> Seen:
        """The rows of *table* that are."""
        times = table.rows["time"]
        inside = (times >= np.uint64(self.since_ns)) & (times <= np.uint64(self.until_ns))
        seen = Seen(table, table.rows if inside.all() else table.rows[inside])
        return seen if self.namespaces is None else seen.where(seen.in_namespaces(self.namespaces))


def ask(question: Question[Answer_co], tables: Iterable[Table], scope: Scope | None = None) -> Answer_co:
    """The answer about the rows of *tables* in *scope* (all if None)."""
    chosen = scope or Scope()
    for table in tables:
        question.take(chosen.of(table))
    return question.answer()


def ranked(found: Iterable[Found], measure: Callable[[Found], float]) -> list[Found]:
    """*found*, the most first; what is equal in that by what it says."""
    return sorted(found, key=lambda one: (-measure(one), str(one)))


def when(time_ns: int) -> str:
    """RFC 3339 in UTC, with milliseconds; "" for 0."""
    if not time_ns:
        return ""
    return (
        datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def share(part: int, whole: int) -> float:
    """Of *whole*, in percent, with one decimal."""
    return round(100 * part / whole, 1) if whole else 0.0
