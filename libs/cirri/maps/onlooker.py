"""Look at a ring buffer that another process reads, without taking anything from it."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import Self

from cirri.maps.info import map_info
from cirri.maps.libbpf import object_get
from cirri.maps.ring import BUSY, DISCARDED, HEADER

_POSITION = struct.Struct("=Q")
_LENGTH = struct.Struct("=I")


class Onlooker:
    """Sees the records that are written from now on, unless it is further behind than the ring is large.

    The pages of the producer are mapped for reading only: records stay in memory when their reader has passed
    them, until the ring has come round.  What was written over meanwhile is found by the producer's position
    and passed over; how many records that were is for the programs' own counters to say.
    """

    def __init__(self, path: Path | str) -> None:
        """Open the ring pinned at *path*.  Raises: MapMissing."""
        self._fd = object_get(Path(path))
        self._size, page = map_info(self._fd).max_entries, mmap.PAGESIZE
        self._theirs = mmap.mmap(
            self._fd, page + 2 * self._size, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED, offset=page
        )
        self._base = page
        self._position = self._written()
        self.missed = 0
        """How often it fell behind."""

    def read(self) -> list[bytes]:
        """What has been written since the last call."""
        records: list[bytes] = []
        written = self._written()
        while self._position < written:
            at = self._base + (self._position & (self._size - 1))
            (length,) = _LENGTH.unpack_from(self._theirs, at)
            if length & BUSY:
                break
            size = length & ~DISCARDED
            record = self._theirs[at + HEADER : at + HEADER + size]
            if self._written() - self._position > self._size:  # what was read may be another's
                self._position = self._written()
                self.missed += 1
                return records
            if not length & DISCARDED:
                records.append(record)
            self._position += (HEADER + size + 7) & ~7
        return records

    def _written(self) -> int:
        (position,) = _POSITION.unpack_from(self._theirs, 0)
        return int(position)

    def close(self) -> None:
        """Give the mapping back."""
        self._theirs.close()
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
