"""The kernel's ring, emptied by a thread of its own: nothing else this process does lets it fill up."""

from __future__ import annotations

import asyncio
import select
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from cirri.layout import EVENT_COUNTER, EVENTS, EventCounter, EventRecord
from cirri.maps import BpfError, RingBuffer, map_info, open_per_cpu
from cirri.maps.ring import HEADER

POLL_S = 0.1
"""The kernel saves most wake-ups: so often the ring is looked at."""
WAITING = 1 << 18
"""Events that may wait to be decoded, some 27 MB; of more, the oldest are lost."""
AT_ONCE = 2048
"""Events of one batch: few enough for the loop to stay responsive."""
STRIDE = HEADER + (EventRecord.size() + 7 & ~7)

Raw = np.ndarray[Any, np.dtype[np.uint8]]


class KernelRing:
    """Events of the ring pinned below *bpffs*, from :meth:`open` on."""

    def __init__(self, bpffs: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._bpffs, self._loop = bpffs, loop
        self.some = asyncio.Event()
        """Set when there is something to take."""
        self.overrun = 0
        """Events that nobody here had time for."""
        self.drained = 0
        self._ring: RingBuffer | None = None
        self._waiting: deque[Raw] = deque()
        self._count = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._counters: Any = None
        self._inode = 0

    @property
    def reading(self) -> bool:
        """Whether the ring is ours."""
        return self._ring is not None

    @property
    def id(self) -> int:
        """Of the kernel's map."""
        return map_info(self._ring.fileno()).id if self._ring is not None else 0

    @property
    def foreign(self) -> int:
        """Records that another version of the programs wrote."""
        return self._ring.foreign if self._ring is not None else 0

    def open(self) -> None:
        """Have the ring to ourselves.  Raises: MapMissing, RingBusy, BpfError."""
        ring = RingBuffer(self._bpffs / EVENTS.name)
        try:
            self._counters = open_per_cpu(self._bpffs, EVENT_COUNTER)
        except BpfError:
            ring.close()
            raise
        self._ring, self._inode = ring, self._pinned()

    def start(self) -> None:
        """Empty it from now on."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._drain, name="drain", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take what is there, then let another reader in; :meth:`take` still gives what waits."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        if self._counters is not None:
            self._counters.close()
            self._counters = None

    def replaced(self) -> bool:
        """Whether another ring is pinned now than the one that is read."""
        return self._pinned() != self._inode

    def counters(self) -> tuple[int, int]:
        """(events submitted, events that found the ring full), since the ring was made."""
        counts = self._counters.to_dict()
        return sum(counts[EventCounter.SUBMITTED]), sum(counts[EventCounter.LOST])

    def pending(self) -> int:
        """Events in the kernel's ring."""
        return self._ring.pending // STRIDE if self._ring is not None else 0

    def take(self) -> Raw | None:
        """Some :data:`AT_ONCE` events, oldest first; None: there are none."""
        with self._lock:
            parts: list[Raw] = []
            room = AT_ONCE
            while self._waiting and room > 0:
                part = self._waiting.popleft()
                if len(part) > room:
                    self._waiting.appendleft(part[room:])
                    part = part[:room]
                room -= len(part)
                parts.append(part)
            self._count -= AT_ONCE - room
        return np.concatenate(parts) if parts else None

    def _pinned(self) -> int:
        try:
            return (self._bpffs / EVENTS.name).stat().st_ino
        except OSError:
            return 0

    def _drain(self) -> None:
        assert self._ring is not None
        ring, size = self._ring, EventRecord.size()
        poller = select.epoll()
        poller.register(ring.fileno(), select.EPOLLIN)
        stopping = False
        try:
            while True:
                if len(raw := ring.drain(size)):
                    self._put(raw)
                elif stopping:
                    return
                elif not ring.pending:
                    poller.poll(POLL_S)
                else:
                    time.sleep(0.001)  # a record that is being written
                stopping = self._stop.is_set()
        finally:
            poller.close()

    def _put(self, raw: Raw) -> None:
        with self._lock:
            self._waiting.append(raw)
            self.drained += len(raw)
            self._count += len(raw)
            while self._count > WAITING:
                lost = len(self._waiting.popleft())
                self._count -= lost
                self.overrun += lost
        self._loop.call_soon_threadsafe(self.some.set)
