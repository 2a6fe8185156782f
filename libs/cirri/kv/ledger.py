"""What an owner wants stored, what the store is known to hold, and what follows from the two.

Pure: the publisher tells it what happened and asks it what to write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Stored(NamedTuple):
    """A value in the store."""

    data: bytes
    revision: int


class Ledger:
    """Books of one bucket, or of one shard of it, by key.

    *dirty* keys differ from what is wanted, *sent* ones have a write on the way whose outcome is
    not known.  Until the store has been read (*known*), every wanted key is dirty.
    """

    def __init__(self) -> None:
        self.stored: dict[str, Stored] = {}
        self.wanted: dict[str, bytes | None] = {}
        """None: the key is to go."""
        self.dirty: dict[str, None] = {}  # ordered: first wanted, first written
        self.sent: dict[str, bytes | None] = {}
        self.owed: set[str] = set()
        """Keys that were dirty when the marker fell due: it is written after them."""
        self.tombstones: dict[str, int] = {}
        """Deleted keys, with the revision of the deletion that the store still keeps."""
        self.high = 0
        """Highest revision of this owner."""
        self.known = False
        self.whole = False
        """Whether what is wanted is all: other keys that the store holds are to go."""

    def want(self, key: str, data: bytes | None) -> int | None:
        """*data* is wanted under *key*; the revision if it is so already, None if it must be written."""
        have = self.stored.get(key)
        if key not in self.sent and (have.data if have else None) == data and (have or self.known):
            self.dirty.pop(key, None)
            self.owed.discard(key)
            if data is None:
                self.wanted.pop(key, None)
            else:
                self.wanted[key] = data
            return have.revision if have else 0
        self.wanted[key] = data
        self.dirty[key] = None
        return None

    def want_all(self, values: Mapping[str, bytes]) -> None:
        """*values* are wanted, and nothing else."""
        self.whole = True
        gone = (self.wanted.keys() | self.stored.keys() | self.sent.keys()) - values.keys()
        for key, data in values.items():
            self.want(key, data)
        for key in gone:  # after the puts: a reader in between sees too much, never too little
            self.want(key, None)

    def take_over(self, key: str, data: bytes | None, revision: int) -> None:
        """The owner wrote *key* by another way."""
        self.high = max(self.high, revision)
        self.dirty.pop(key, None)
        self.owed.discard(key)
        if data is None:
            self.stored.pop(key, None)
            self.wanted.pop(key, None)
        else:
            self.stored[key] = Stored(data, revision)
            self.wanted[key] = data

    def due(self, room: int) -> list[str]:
        """Up to *room* keys to write now."""
        keys: list[str] = []
        for key in self.dirty:
            if len(keys) >= room:
                break
            if key not in self.sent:
                keys.append(key)
        return keys

    def send(self, key: str) -> bytes | None:
        """What to write under *key*, which is on its way from now on."""
        self.sent[key] = data = self.wanted.get(key)
        return data

    def unsent(self, key: str) -> None:
        """The write of *key* has no known outcome, and stays due."""
        self.sent.pop(key, None)

    def arrived(self, key: str, revision: int) -> bool:
        """The write of *key* is stored; whether the key is now as wanted."""
        data = self.sent.pop(key, None)
        self.high = max(self.high, revision)
        if data is None:
            self.stored.pop(key, None)
            self.tombstones[key] = revision
        else:
            self.stored[key] = Stored(data, revision)
            self.tombstones.pop(key, None)
        if self.wanted.get(key) != data:
            return False
        if data is None:
            self.wanted.pop(key, None)
        self.dirty.pop(key, None)
        self.owed.discard(key)
        return True

    def owe(self) -> None:
        """A marker is due, after all that is dirty now."""
        self.owed = set(self.dirty)

    def observe(self, found: Mapping[str, Stored], tombstones: Mapping[str, int], newest: int) -> bool:
        """The store was read: it holds *found*, its last revision of ours is *newest*.

        Whether something was lost: that this owner knew to be stored, and still wants.
        """
        lost = any(
            (key not in found or found[key].data != had.data) and self.wanted.get(key) is not None
            for key, had in self.stored.items()
        )
        # A deletion was lost if a key that was known to be absent is back.
        lost |= self.known and any(key not in self.stored and key not in self.dirty for key in found)
        self.stored.clear()
        self.stored.update(found)
        self.tombstones.clear()
        self.tombstones.update(tombstones)
        # Revisions start anew in a store that was emptied.
        self.high = newest
        self.known = True
        for key, stored in found.items():
            self.wanted.setdefault(key, None if self.whole else stored.data)
        self.dirty.clear()
        for key in tuple(self.wanted):
            self.want(key, self.wanted[key])
        self.owed &= self.dirty.keys()
        return lost
