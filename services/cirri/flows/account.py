"""What has become of the kernel's events, in a file that outlives this process, however it ends."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

_SHAPE = struct.Struct("=QQQQ")


class Account:
    """Numbers in shared memory: writing them costs no system call, and a killed process leaves them right.

    Events that were submitted to the kernel's ring are told (stored on the stream), counted as lost, or
    still wait in the ring.  What is none of these was in the memory of a process that was killed.
    """

    def __init__(self, path: Path, ring: int) -> None:
        """*ring*: tells one ring of the kernel from another; a new one begins with zeros."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, _SHAPE.size)
            self._memory = mmap.mmap(fd, _SHAPE.size)
        finally:
            os.close(fd)
        self._settled = self._dropped = 0
        known, settled, dropped, _ = _SHAPE.unpack(self._memory[: _SHAPE.size])
        self._ring = ring
        if known == ring:
            self._settled, self._dropped = int(settled), int(dropped)
        self._write()

    @property
    def settled(self) -> int:
        """Events of the ring that were told or counted as lost."""
        return self._settled

    @property
    def dropped(self) -> int:
        """Events that found the ring full, as far as they were counted."""
        return self._dropped

    def settle(self, count: int) -> None:
        """*count* events more were told, or counted."""
        self._settled += count
        self._write()

    def drop(self, total: int) -> None:
        """The kernel had no room for *total* events so far."""
        self._dropped = total
        self._write()

    def close(self) -> None:
        """Let go of the file."""
        self._memory.close()

    def _write(self) -> None:
        self._memory[: _SHAPE.size] = _SHAPE.pack(self._ring, self._settled, self._dropped, 0)
