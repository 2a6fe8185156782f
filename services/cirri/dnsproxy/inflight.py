"""Questions under way, in memory that outlives the process: if it is killed, the other instance asks them.

Datagrams are received straight into a file in the run directory, so none is between the kernel and the note
of it.  Each instance holds the lock of its file; who can take another's knows that its owner is dead.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cirri.dnsproxy.slots import Question, left, needed
from cirri.dnsproxy.sockets import FAMILIES

SLOTS, SIZE = 1024, 4096
"""Questions that are kept, and the bytes of the largest one."""
INSTANCES = 4
FRESH_S = 5.0
"""Clients wait no longer: what is older is left alone."""
_BEAT = struct.Struct("=d")


class Inflight:
    """This instance's file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._locks = {number: self._lock_file(number) for number in range(INSTANCES)}
        self.number = next((each for each in self._locks if self._try(each)), -1)
        """Of the instance; -1: there are too many, and this one's questions are not kept."""
        self.left = list(self._left(self.number)) if self.number >= 0 else []
        """What the owner before us had not done."""
        self.memories = {family: self._made(family) for family in FAMILIES}
        """Slots for datagrams, and behind them when one was received last."""

    def orphans(self) -> Iterator[Question]:
        """Questions of instances that have died since this was called last."""
        for number in range(INSTANCES):
            if number != self.number and self._path(number, FAMILIES[0]).exists() and self._try(number):
                try:
                    yield from self._left(number)
                finally:
                    fcntl.flock(self._locks[number], fcntl.LOCK_UN)

    def close(self) -> None:
        """Nothing is under way any more."""
        if self.number >= 0:
            self._remove(self.number)
        for fd in self._locks.values():
            os.close(fd)

    def _path(self, number: int, family: socket.AddressFamily) -> Path:
        return self._folder / f"dnsproxy-inflight-{number}-{4 if family == socket.AF_INET else 6}"

    def _lock_file(self, number: int) -> int:
        path = self._folder / f"dnsproxy-inflight-{number}.lock"
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _try(self, number: int) -> bool:
        try:
            fcntl.flock(self._locks[number], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _made(self, family: socket.AddressFamily) -> mmap.mmap:
        size = needed(SLOTS, SIZE) + _BEAT.size
        if self.number < 0:
            return mmap.mmap(-1, size)
        fd = os.open(
            self._path(self.number, family), os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
        )
        try:
            os.ftruncate(fd, size)
            return mmap.mmap(fd, size)
        finally:
            os.close(fd)

    def _left(self, number: int) -> Iterator[Question]:
        """What is not done in the file of a dead instance, whose lock we have; the file goes."""
        size = needed(SLOTS, SIZE) + _BEAT.size
        for family in FAMILIES:
            with suppress(OSError), open(self._path(number, family), "r+b") as file:
                if os.fstat(file.fileno()).st_size != size:
                    continue
                memory = mmap.mmap(file.fileno(), size)
                if time.monotonic() - _BEAT.unpack_from(memory, size - _BEAT.size)[0] < FRESH_S:
                    yield from left(memory, SLOTS, SIZE)
        self._remove(number)

    def _remove(self, number: int) -> None:
        for family in FAMILIES:
            self._path(number, family).unlink(missing_ok=True)
