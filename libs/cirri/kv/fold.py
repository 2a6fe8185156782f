"""What a reader believes: the last good state, given what a store that may forget has said.

Pure: messages in, changed keys out.  The rules:

* A snapshot with the owner's completeness marker is the truth: what it lacks is dropped.
* Without the marker (an emptied or half-rewritten store) values are taken over, and nothing that
  is merely absent is dropped until the marker comes.
* A store that went back in time (its last sequence or the marker's era is lower than one already
  seen) is not believed about anything, until the owner has written a newer marker.
* A value that cannot be read leaves the last good one in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar

from cirri.kv.wire import Bad, Marker

T = TypeVar("T")

NO_MARKER = Marker(complete=False)


class Cell(NamedTuple, Generic[T]):
    """A value and the revision it was written at."""

    value: T
    revision: int


class Said(NamedTuple, Generic[T]):
    """What a message says about a key: a value, one that cannot be read, or deletion (None)."""

    word: T | Bad | None
    revision: int


class Fold(Generic[T]):
    """State of one pattern of one bucket; *shard_of* says which owner a key belongs to."""

    def __init__(self, shard_of: Callable[[str], str]) -> None:
        self._shard_of = shard_of
        self.cells: dict[str, Cell[T]] = {}
        self.revision = 0
        """Last sequence folded in."""
        self.eras: dict[str, int] = {}
        """Newest era that a marker of each owner had."""
        self.open: dict[str, dict[str, Said[T]]] = {}
        """Owners whose marker is awaited, with what the store holds of theirs meanwhile."""
        self.doubted: set[str] = set()
        """Those of ``open`` whose store went back in time."""
        self._created = ""
        self._last_seq = 0
        self._snapshot: dict[str, Said[T]] | None = None
        self._markers: dict[str, Marker] = {}
        self._top = 0
        self._marked: set[str] = set()  # owners that write markers at all

    def begin(self, created: str, last_seq: int, markers: Mapping[str, Marker] | None = None) -> None:
        """A snapshot starts, of the stream made at *created* that now ends at *last_seq*.

        *markers* are the owners' markers if they are not part of the pattern.
        """
        if created != self._created:
            self.revision = 0
            self.eras.clear()
            self.doubted.clear()
            self._created = created
        self._last_seq, self._top = last_seq, 0
        self._snapshot = {}
        self._markers = dict(markers or {})

    def entry(self, key: str, word: T | Bad | None, revision: int) -> frozenset[str]:
        """A message about *key*; returns the keys whose value changed."""
        said = Said(word, revision)
        if self._snapshot is not None:
            self._snapshot[key], self._top = said, max(self._top, revision)
            return frozenset()
        self.revision = revision
        if (waiting := self.open.get(self._shard_of(key))) is not None:
            waiting[key] = said
        return frozenset((key,)) if self._take(key, said) else frozenset()

    def marker(self, shard: str, marker: Marker, revision: int) -> frozenset[str]:
        """A message about the marker of *shard*; returns the keys whose value changed."""
        if self._snapshot is not None:
            self._top = max(self._top, revision)
            self._markers[shard] = marker
            return frozenset()
        self.revision = revision
        self.eras[shard] = max(marker.era, self.eras.get(shard, 0))
        if not marker.complete:
            return frozenset()
        self._marked.add(shard)
        self.doubted.discard(shard)
        waiting = self.open.pop(shard, None)
        return frozenset() if waiting is None else frozenset(self._settle(shard, waiting))

    def end(self, expected: Iterable[str] = ()) -> frozenset[str]:
        """The snapshot is complete; returns the keys whose value changed.

        *expected*: owners that are awaited even if the store holds nothing of theirs.
        """
        went_back = self._last_seq < self.revision
        shards: dict[str, dict[str, Said[T]]] = {shard: {} for shard in (*expected, *self._markers)}
        for key in self.cells:
            shards.setdefault(self._shard_of(key), {})
        for key, said in (self._snapshot or {}).items():
            shards.setdefault(self._shard_of(key), {})[key] = said
        self._snapshot = None
        doubted, self.open, self.doubted = self.doubted, {}, set()
        changed: set[str] = set()
        for shard, said_of in shards.items():
            known, marker = self.eras.get(shard, 0), self._markers.get(shard, NO_MARKER)
            # A marker newer than all before clears every doubt; an older one raises it.
            same = marker.era in (0, known)
            if known and ((went_back or shard in doubted) if same else marker.era < known):
                self.open[shard] = said_of
                self.doubted.add(shard)
                continue
            self.eras[shard] = max(known, marker.era)
            if marker.complete:
                self._marked.add(shard)
                changed |= self._settle(shard, said_of)
            else:
                self.open[shard] = said_of
                # A removal may be a past one, of a key that the owner has yet to write again.
                changed |= {
                    key
                    for key, said in said_of.items()
                    if not (said.word is None and shard in self._marked) and self._take(key, said)
                }
        self.revision = self._top if went_back else max(self.revision, self._top)
        return frozenset(changed)

    def _settle(self, shard: str, said_of: dict[str, Said[T]]) -> set[str]:
        """*said_of* is all there is of *shard*."""
        changed = {key for key in self.cells if key not in said_of and self._shard_of(key) == shard}
        for key in changed:
            del self.cells[key]
        return changed | {key for key, said in said_of.items() if self._take(key, said)}

    def _take(self, key: str, said: Said[T]) -> bool:
        """Believe *said*; whether that changed the value."""
        word, have = said.word, self.cells.get(key)
        if isinstance(word, Bad):
            return False
        if word is None:
            return self.cells.pop(key, None) is not None
        self.cells[key] = Cell(word, said.revision)
        return have is None or have.value != word
