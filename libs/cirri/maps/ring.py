"""Read a BPF ring buffer: records in order, straight from the memory shared with the kernel."""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from cirri.maps.errors import MapMismatch, RingBusy
from cirri.maps.info import map_info
from cirri.maps.libbpf import object_get

if TYPE_CHECKING:
    import numpy

RINGBUF = 27
BUSY, DISCARDED = 1 << 31, 1 << 30
"""Bits of a record's header: still being written; thrown away by its writer."""
HEADER = 8
POLL_S = 0.1
"""Writers may save the wake-up, which costs more than the packet it reports; so look now and then."""
_POSITION = struct.Struct("=Q")
_LENGTH = struct.Struct("=I")


class RingBuffer:
    """The one reader of a ring buffer.

    The kernel's layout (kernel/bpf/ringbuf.c): a page with the consumer's position, which is
    ours to write; a page with the producer's; then the data, mapped twice in a row so that a
    record never wraps.  Positions only grow; the data's size is a power of two.

    A lock on the directory of the pin keeps a second reader away, since two would undo each
    other's positions.  Full rings are the writer's loss: programs count it.
    """

    def __init__(self, where: Path | str | int) -> None:
        """Open the ring pinned at *where*, or take over descriptor *where* (then without lock).

        Raises:
            MapMissing: nothing is pinned there.
            MapMismatch: it is no ring buffer.
            RingBusy: another process reads it.
        """
        self._fd = self._lock = -1
        self.foreign = 0
        """Records that :meth:`drain` passed over."""
        self._fd = where if isinstance(where, int) else object_get(Path(where))
        info = map_info(self._fd)
        if info.type != RINGBUF:
            raise MapMismatch(info.name, "type", info.type, RINGBUF)
        if not isinstance(where, int):
            self._lock = _lock(Path(where))
        page = mmap.PAGESIZE
        self._size = info.max_entries
        self._ours = mmap.mmap(self._fd, page)
        self._theirs = mmap.mmap(
            self._fd, page + 2 * self._size, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED, offset=page
        )
        self._base = page
        # One store each: `struct` clears what it fills, and to the kernel a ring read up to 0 is full.
        self._read_to = memoryview(self._ours).cast("Q")
        self._position = self._read_to[0]

    def fileno(self) -> int:
        """Readable when there are records."""
        return self._fd

    @property
    def pending(self) -> int:
        """Bytes that wait to be read; some may belong to records still being written."""
        written: int = _POSITION.unpack_from(self._theirs, 0)[0]
        read: int = self._position
        return written - read

    def read(self, limit: int = 1 << 30) -> list[bytes]:
        """Take at most *limit* records that are there, without waiting."""
        records: list[bytes] = []
        theirs, mask, base = self._theirs, self._size - 1, self._base
        position = self._position
        # Loads happen in program order on x86-64; between two of them the interpreter executes
        # far more than an out-of-order window on other CPUs.
        (written,) = _POSITION.unpack_from(theirs, 0)
        while position < written and len(records) < limit:
            at = base + (position & mask)
            (length,) = _LENGTH.unpack_from(theirs, at)
            if length & BUSY:
                break
            size = length & ~DISCARDED
            if not length & DISCARDED:
                records.append(theirs[at + HEADER : at + HEADER + size])
            position += (HEADER + size + 7) & ~7
        if position != self._position:
            self._move(position)
        return records

    def drain(self, size: int, limit: int = 1 << 30) -> numpy.ndarray[Any, numpy.dtype[numpy.uint8]]:
        """Take at most *limit* records of *size* bytes each that are there: an array (records, *size*).

        Records of another size are passed over, and counted in :attr:`foreign`.
        """
        import numpy as np  # 100 ms that other readers need not spend

        stride = HEADER + (size + 7 & ~7)
        (written,) = _POSITION.unpack_from(self._theirs, 0)
        taken = []
        while limit > 0 and (most := min((written - self._position) // stride, limit)) >= 0:
            at = self._base + (self._position & (self._size - 1))
            heads = np.ndarray((most,), "=u4", self._theirs, at, (stride,)).copy()
            whole = (heads & np.uint32(~DISCARDED & 0xFFFFFFFF)) == size
            count = most if whole.all() else int(whole.argmin())
            if not count:
                if not self._pass_over(written, size):
                    break
                continue
            block = np.ndarray((count, size), np.uint8, self._theirs, at + HEADER, (stride, 1))
            kept = heads[:count] == size
            taken.append(block.copy() if kept.all() else block[kept])
            del block  # the mapping could not be closed while somebody looks at it
            limit -= count
            self._move(self._position + count * stride)
        return taken[0] if len(taken) == 1 else np.concatenate([np.empty((0, size), np.uint8), *taken])

    def _pass_over(self, written: int, size: int) -> bool:
        """Skip the next record if it is not of *size*; False: there is none, or it is still being written."""
        if self._position >= written:
            return False
        (length,) = _LENGTH.unpack_from(self._theirs, self._base + (self._position & (self._size - 1)))
        found = length & ~DISCARDED
        if length & BUSY or found == size:
            return False
        self.foreign += not length & DISCARDED
        self._move(self._position + (HEADER + found + 7 & ~7))
        return True

    def _move(self, position: int) -> None:
        self._position = position
        self._read_to[0] = position

    def wait(self, timeout_s: float = float("inf")) -> bool:
        """Wait until there is a record; False if there was none in time."""
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        deadline = monotonic() + timeout_s
        while not poller.poll(1000 * max(0.0, min(POLL_S, deadline - monotonic()))):
            if monotonic() >= deadline:
                return False
        return True

    async def batches(self, limit: int = 4096) -> AsyncIterator[list[bytes]]:
        """Records as they come, at most *limit* at once; never empty lists."""
        import asyncio  # 20 ms that readers without it need not spend

        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._fd, ready.set)
        try:
            while True:
                if records := self.read(limit):
                    yield records
                    continue
                ready.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await ready.wait()
        finally:
            loop.remove_reader(self._fd)

    def close(self) -> None:
        """Let another reader in."""
        if hasattr(self, "_read_to"):
            self._read_to.release()
        for name in ("_ours", "_theirs"):
            if hasattr(self, name):
                getattr(self, name).close()
        for fd in (self._fd, self._lock):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _lock(path: Path) -> int:
    """A descriptor that holds the lock of the directory of *path*: pins themselves cannot be locked."""
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise RingBusy(path) from None
    return fd
