"""Events on their way to the stream: by namespace, each batch with the processes it speaks of.  Pure."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from cirri.model.runtimeevents import Process, RuntimeBatch, RuntimeEvent

BATCH = 1000
"""Different events of one message."""
BATCH_ALIKE = 10_000
"""Events of one message, with those that are like another but for their time."""
BATCH_BYTES = 400 << 10
"""Of processes in one, about; the last one brings its ancestors, some 150 KiB at most."""
PROCESS_BYTES = 400
"""What a process takes beside its texts."""


class Gathering:
    """Events of one node that are not sent yet."""

    def __init__(self, node: str, instance: int, ancestors: Callable[[Process], Iterable[Process]]) -> None:
        self._node, self._instance, self._ancestors = node, instance, ancestors
        self._open: dict[str, _Batch] = {}
        self._number = 0
        self.count = 0
        """Events that wait here."""
        self.last: Place | None = None
        """Where the event is that :meth:`add` took last."""

    def add(self, process: Process, **said: Any) -> Iterator[RuntimeBatch]:
        """Take an event of *process*; gives a batch if one is full now."""
        namespace = process.pod.namespace if process.pod else ""
        batch = self._open.setdefault(namespace, _Batch())
        index = batch.index(process)
        for ancestor in self._ancestors(process):
            batch.index(ancestor)
        batch.events.append(RuntimeEvent(process=index, **said))
        self.count += 1
        self.last = Place(namespace, batch, len(batch.events) - 1)
        if batch.tell(len(batch.events) - 1, said["time"]) or batch.bytes >= BATCH_BYTES:
            yield self._close(namespace)

    def again(self, place: Place, time_ns: int) -> RuntimeBatch | None:
        """Take an event like that at *place*, which is open, but for its time; a batch if one is full."""
        self.count += 1
        return self._close(place.namespace) if place.batch.tell(place.at, time_ns) else None

    def flush(self) -> Iterator[RuntimeBatch]:
        """Everything."""
        for namespace in list(self._open):
            yield self._close(namespace)

    def _close(self, namespace: str) -> RuntimeBatch:
        batch = self._open.pop(namespace)
        batch.open = False
        self._number += 1
        self.count -= len(batch.times)
        alike = len(batch.times) > len(batch.events)
        return RuntimeBatch(
            node=self._node,
            instance=self._instance,
            number=self._number,
            namespace=namespace,
            first_ns=min(batch.times),
            last_ns=max(batch.times),
            processes=tuple(batch.processes),
            events=tuple(batch.events),
            which=_little(batch.which) if alike else b"",
            times=_little(batch.times) if alike else b"",
        )


class _Batch:
    """One that is open."""

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self.events: list[RuntimeEvent] = []
        self.which, self.times = array("I"), array("Q")
        """Of each event as they came: its index in :attr:`events`; Unix time, ns."""
        self.bytes = 0
        self.open = True
        self._at: dict[str, int] = {}

    def tell(self, at: int, time_ns: int) -> bool:
        """One event more, like that *at* but for its time; whether the batch is full now."""
        self.which.append(at)
        self.times.append(time_ns)
        return len(self.events) >= BATCH or len(self.times) >= BATCH_ALIKE

    def index(self, process: Process) -> int:
        """Where *process* is in the table, from now on."""
        at = self._at.get(process.exec_id)
        if at is None:
            at = self._at[process.exec_id] = len(self.processes)
            self.processes.append(process)
            self.bytes += PROCESS_BYTES + 2 * (
                len(process.arguments) + len(process.cwd) + len(process.binary)
            )
        return at


class Place(NamedTuple):
    """Where an event is."""

    namespace: str
    batch: _Batch
    at: int

    @property
    def open(self) -> bool:
        """Whether events like it can be taken here."""
        return self.batch.open


def _little(column: array[int]) -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()
