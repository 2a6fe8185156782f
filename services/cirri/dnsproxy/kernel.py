"""The kernel's maps: names of addresses (written), identities of servers and living connections (read)."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cirri.layout import CT, IPCACHE, NAMES, ReservedIdentity
from cirri.layout.address import V4_MAPPED
from cirri.maps import BpfError, BpfMap, MapFull, MapMissing, open_pinned

_KEY, _NUMBER = struct.Struct("=I16s"), struct.Struct("=I")
_EXPIRES = struct.Struct("=Q")
PAUSE_EVERY = 2048
"""Entries of a map that are read before others have their turn."""
WORLD4, WORLD6 = ReservedIdentity.WORLD_IPV4, ReservedIdentity.WORLD_IPV6

Entry = tuple[int, bytes, int]
"""(pod, address, number); number 0: no entry."""


class Kernel:
    """This node's maps; those that are not there (yet) are tried again."""

    def __init__(self, bpffs: Path) -> None:
        self._bpffs = bpffs
        self._open: dict[str, BpfMap[Any, Any]] = {}
        self.full = 0
        """Times that the map of names had no room."""

    @property
    def ready(self) -> bool:
        """Whether the map of names is there."""
        return self._map(NAMES) is not None

    def write(self, entries: Iterable[Entry]) -> bool:
        """Write and remove *entries*; False if the kernel does not have all of them now."""
        names = self._map(NAMES)
        if names is None:
            return False
        keys, values, lost = [], [], []
        for pod, address, number in entries:
            if number:
                keys.append(_KEY.pack(pod, address))
                values.append(_NUMBER.pack(number))
            else:
                lost.append(_KEY.pack(pod, address))
        try:
            names.delete_many_raw(b"".join(lost))
            names.put_many_raw(b"".join(keys), b"".join(values))
        except MapFull:
            self.full += 1
            return False
        except BpfError:
            self._open.pop(NAMES.name)
            return False
        return True

    def get(self, pod: int, address: bytes) -> int:
        """The number of an entry, 0 if there is none."""
        names = self._map(NAMES)
        raw = names.get_raw(_KEY.pack(pod, address)) if names else None
        return _NUMBER.unpack(raw)[0] if raw else 0

    async def read(self) -> Mapping[tuple[int, bytes], int]:
        """Every entry, (pod, address) -> number; those that change meanwhile may be as before."""
        names = self._map(NAMES)
        found: dict[tuple[int, bytes], int] = {}
        for count, (key, value) in enumerate(names.items_raw() if names else ()):
            found[_KEY.unpack(key)] = _NUMBER.unpack(value)[0]
            if count % PAUSE_EVERY == 0:
                await asyncio.sleep(0)
        return found

    def identity(self, server: bytes) -> int:
        """Who *server* (4 or 16 bytes) is."""
        ipcache = self._map(IPCACHE)
        mapped = V4_MAPPED + server if len(server) == 4 else server
        raw = ipcache.get_raw(_NUMBER.pack(128) + mapped) if ipcache else None
        number: int = _NUMBER.unpack_from(raw)[0] if raw else 0
        return number or (WORLD4 if len(server) == 4 else WORLD6)

    async def alive(self, pods: Mapping[bytes, int]) -> set[tuple[int, bytes]]:
        """(pod, address) of every living connection; *pods*: address (16 bytes) -> pod."""
        self._open.pop(CT.name, None)  # when its size changes another one takes its place
        table = self._map(CT)
        found: set[tuple[int, bytes]] = set()
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        for count, (key, value) in enumerate(table.items_raw() if table else ()):
            for one, other in ((key[:16], key[16:32]), (key[16:32], key[:16])):
                if (pod := pods.get(one)) is not None and _EXPIRES.unpack_from(value)[0] > now:
                    found.add((pod, other))
            if count % PAUSE_EVERY == 0:
                await asyncio.sleep(0)
        return found

    def _map(self, spec: Any) -> BpfMap[Any, Any] | None:
        found = self._open.get(spec.name)
        if found is None:
            try:
                found = self._open[spec.name] = open_pinned(self._bpffs, spec)
            except MapMissing:
                return None
        return found
