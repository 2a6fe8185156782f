"""Address prefixes as ranges of numbers: what lies in what, without a walk over all of them."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from cirri.labels.prefixes import Network, prefix_of

BITS = {4: 32, 6: 128}


class Span(NamedTuple):
    """The addresses of a prefix."""

    version: int
    first: int
    last: int

    def inside(self, other: Span) -> bool:
        """Whether it lies in *other*, or is it."""
        return self.version == other.version and other.first <= self.first and self.last <= other.last

    @property
    def length(self) -> int:
        """Of the prefix, in bits."""
        return BITS[self.version] - (self.last - self.first).bit_length()

    def widened(self, length: int) -> Span:
        """The prefix of *length* (at most its own) that it lies in."""
        rest = (1 << BITS[self.version] - length) - 1
        return Span(self.version, self.first & ~rest, self.first | rest)


@lru_cache(maxsize=1 << 16)
def span_of(key: str) -> Span | None:
    """Addresses of the prefix with label key *key*; None if it is none."""
    try:
        return span(prefix_of(key))
    except ValueError:
        return None


def span(prefix: Network) -> Span:
    """Addresses of *prefix*."""
    first = int(prefix.network_address)
    return Span(prefix.version, first, first | int(prefix.hostmask))


class Spans:
    """Numbers by the prefixes that they stand for, sorted by first address."""

    def __init__(self) -> None:
        self._sorted: dict[int, list[tuple[int, int, int]]] = {version: [] for version in BITS}

    def add(self, span: Span, number: int) -> None:
        """Note that *number* has prefix *span*."""
        insort(self._sorted[span.version], (span.first, span.last, number))

    def discard(self, span: Span, number: int) -> None:
        """Forget that *number* has prefix *span*."""
        rows, row = self._sorted[span.version], (span.first, span.last, number)
        index = bisect_left(rows, row)
        if index < len(rows) and rows[index] == row:
            del rows[index]

    def inside(self, span: Span) -> Iterator[int]:
        """Numbers with a prefix in *span*."""
        rows = self._sorted[span.version]
        begin, end = bisect_left(rows, (span.first,)), bisect_left(rows, (span.last + 1,))
        # Only a prefix that begins where *span* does can reach beyond it.
        return (number for _, last, number in rows[begin:end] if last <= span.last)
