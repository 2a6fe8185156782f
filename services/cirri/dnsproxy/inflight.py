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

from cirri.dnsproxy.batches import Inbox
from cirri.dnsproxy.sockets import FAMILIES

SLOTS, SIZE = 1024, 4096
"""Questions that are kept, and the bytes of the largest one."""
INSTANCES = 4
FRESH_S = 5.0
"""Clients wait no longer: what is older is left alone."""
_BEAT = struct.Struct("=d")

Question = tuple[bytes, bytes, bytes]


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
        self._memory = {family: self._made(family) for family in FAMILIES}
        self._rings = {family: Inbox(SLOTS, SIZE, memory) for family, memory in self._memory.items()}
        self._next = dict.fromkeys(FAMILIES, 0)
        self._family = {id(ring): family for family, ring in self._rings.items()}

    def ring(self, family: socket.AddressFamily) -> Inbox:
        """Where datagrams of *family* go."""
        return self._rings[family]

    def room(self, ring: Inbox, count: int) -> int:
        """The first of *count* slots that are next in turn."""
        family = self._family[id(ring)]
        if self._next[family] + count > SLOTS:
            self._next[family] = 0
        return self._next[family]

    def took(self, ring: Inbox, count: int) -> None:
        """*count* of them are in use."""
        family = self._family[id(ring)]
        self._next[family] += count
        _BEAT.pack_into(self._memory[family], len(self._memory[family]) - _BEAT.size, time.monotonic())

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
        size = Inbox.needed(SLOTS, SIZE) + _BEAT.size
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
        size = Inbox.needed(SLOTS, SIZE) + _BEAT.size
        for family in FAMILIES:
            with suppress(OSError), open(self._path(number, family), "r+b") as file:
                if os.fstat(file.fileno()).st_size != size:
                    continue
                memory = mmap.mmap(file.fileno(), size)
                if time.monotonic() - _BEAT.unpack_from(memory, size - _BEAT.size)[0] < FRESH_S:
                    yield from Inbox(SLOTS, SIZE, memory, fresh=False).left()
        self._remove(number)

    def _remove(self, number: int) -> None:
        for family in FAMILIES:
            self._path(number, family).unlink(missing_ok=True)
