"""Numbers for sets of names, as policy entries of this node know them; kept in a file.

An address that DNS gave for names that policies speak of has, for an endpoint, the number of the set of
selectors that these names satisfy.  Numbers are stable: the DNS proxy's facts outlive this process.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct
from pyroaring import BitMap

from cirri.errors import CirriError
from cirri.labels import NAMES_SPACE

UNUSED_S = 600.0
"""How long a number stays after a name of its set is spoken of no more: facts may still bear it."""


class NoNames(CirriError):
    """A set without names was asked about."""

    def __init__(self) -> None:
        super().__init__("the set is empty")


class NamesExhausted(CirriError):
    """Every number is taken."""

    hint = "Use patterns that fewer combinations of names satisfy"

    def __init__(self) -> None:
        super().__init__(f"all {len(NAMES_SPACE)} numbers for sets of names are taken")


class Stored(Struct, frozen=True):
    """What the file holds."""

    last: int = 0
    sets: dict[int, tuple[str, ...]] = {}
    """Keys of selectors, sorted, by number."""


class Names:
    """Every number of the node."""

    def __init__(self, file: Path) -> None:
        """*file* outlives the process; one that cannot be read is as if there was none."""
        self._file = file
        self._last, self._stale = 0, False
        self._sets: dict[int, tuple[str, ...]] = {}
        self._unused: dict[int, float] = {}
        self._in: defaultdict[str, BitMap] = defaultdict(BitMap)
        """Numbers by the selectors in their sets."""
        with suppress(OSError, msgspec.DecodeError):
            stored = msgspec.msgpack.decode(file.read_bytes(), type=Stored)
            self._last, self._sets = stored.last, stored.sets
        self._numbers = {keys: number for number, keys in self._sets.items()}
        for number, keys in self._sets.items():
            self._note(number, keys)

    @property
    def sets(self) -> Mapping[int, tuple[str, ...]]:
        """Keys of selectors by number."""
        return self._sets

    def number(self, keys: Iterable[str]) -> tuple[int, bool]:
        """The number of a set of selectors, and whether it is new; :meth:`save` must follow.

        Raises: NoNames, NamesExhausted.
        """
        known = tuple(sorted(set(keys)))
        if not known:
            raise NoNames
        if (number := self._numbers.get(known)) is not None:
            self._unused.pop(number, None)
            return number, False
        number = self._free()
        self._sets[number], self._numbers[known], self._last = known, number, number
        self._note(number, known)
        self._stale = True
        return number, True

    def members(self, key: str) -> BitMap:
        """Numbers of the sets that the selector with *key* is in."""
        return self._in[key].copy() if key in self._in else BitMap()

    def prune(self, spoken_of: Collection[str], now: float) -> set[str]:
        """Forget numbers of sets that for long have had a selector not *spoken_of*; the selectors of these.

        *now*: seconds of the monotonic clock.
        """
        for number, keys in self._sets.items():
            if all(key in spoken_of for key in keys):
                self._unused.pop(number, None)
            else:
                self._unused.setdefault(number, now)
        gone = [number for number, since in self._unused.items() if now > since + UNUSED_S]
        touched = {key for number in gone for key in self._sets[number]}
        for number in gone:
            keys = self._sets.pop(number)
            del self._unused[number], self._numbers[keys]
            for key in keys:
                self._in[key].discard(number)
        self._stale |= bool(gone)
        self.save()
        return touched

    def save(self) -> None:
        """Have the file hold what is known, before anybody goes by it."""
        if self._stale:
            draft = self._file.with_suffix(".draft")
            draft.write_bytes(msgspec.msgpack.encode(Stored(self._last, self._sets)))
            draft.replace(self._file)
            self._stale = False

    def _note(self, number: int, keys: Iterable[str]) -> None:
        for key in keys:
            self._in[key].add(number)

    def _free(self) -> int:
        start = self._last + 1 if self._last in NAMES_SPACE else NAMES_SPACE.start
        for first in (start, NAMES_SPACE.start):
            for number in range(first, NAMES_SPACE.stop):
                if number not in self._sets:
                    return number
        raise NamesExhausted
