"""``cirri_ipcache``, with a copy of what is in it and the lookups that programs make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from pyroaring import BitMap

from cirri.labels import is_located
from cirri.layout import IpcacheKey, IpcacheValue
from cirri.maps import BpfMap, MapFull

Changes = dict[IpcacheKey, IpcacheValue | None]
"""What to write; None: what to delete."""


class Ipcache:
    """The map, and which identities of places programs may meet because of it."""

    def __init__(self, bpf: BpfMap[IpcacheKey, IpcacheValue]) -> None:
        self.map = bpf
        self.fault = ""
        self.copy: dict[IpcacheKey, IpcacheValue] = {}
        self.located = BitMap()
        """Identities of prefixes and nodes that some address is mapped to."""
        self._keys: dict[int, set[IpcacheKey]] = {}
        """Of each of them."""
        self._lengths: Counter[int] = Counter()
        self._read()

    def _read(self) -> None:
        self.copy, self.located = self.map.to_dict(), BitMap()
        self._keys, self._lengths = {}, Counter()
        for key, value in self.copy.items():
            self._count(key, value)

    def apply(self, changes: Changes) -> bool:
        """Delete (where the value is None), then write in the order given; True if anything changed.

        A full map leaves new addresses unknown, which no rule for pods matches; the fault says so.
        """
        put = {k: v for k, v in changes.items() if v is not None and self.copy.get(k) != v}
        drop = [k for k, v in changes.items() if v is None and k in self.copy]
        if drop:
            self.map.delete_many(drop)
            for key in drop:
                self._uncount(key, self.copy.pop(key))
        if put:
            try:
                self.map.put_many(put.items())
            except MapFull as error:
                self.fault = str(error)
                self._read()
                return True
            self.fault = ""
            for key, value in put.items():
                if (old := self.copy.get(key)) is not None:
                    self._uncount(key, old)
                self.copy[key] = value
                self._count(key, value)
        return bool(put or drop)

    def lengths(self, besides: Iterable[int] = ()) -> list[int]:
        """Lengths of the prefixes that there are, and those of *besides*, the longest first."""
        return sorted({*self._lengths, *besides}, reverse=True)

    def owner(self, keys: Iterable[IpcacheKey], besides: Mapping[IpcacheKey, int] | None = None) -> int:
        """The identity under the first of *keys* that has one, 0 if none has; *besides*: entries that
        are about to be written."""
        for key in keys:
            if besides and (number := besides.get(key)) is not None:
                return number
            if (found := self.copy.get(key)) is not None:
                return found.identity
        return 0

    def keys_of(self, number: int) -> frozenset[IpcacheKey]:
        """The prefixes that are mapped to the place *number*."""
        return frozenset(self._keys.get(number, ()))

    def _count(self, key: IpcacheKey, value: IpcacheValue) -> None:
        self._lengths[key.prefix_len] += 1
        if is_located(value.identity):
            self._keys.setdefault(value.identity, set()).add(key)
            self.located.add(value.identity)

    def _uncount(self, key: IpcacheKey, value: IpcacheValue) -> None:
        self._lengths[key.prefix_len] -= 1
        if not self._lengths[key.prefix_len]:
            del self._lengths[key.prefix_len]
        if is_located(number := value.identity):
            self._keys[number].discard(key)
            if not self._keys[number]:
                del self._keys[number]
                self.located.discard(number)
