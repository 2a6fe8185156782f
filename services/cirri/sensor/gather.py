"""Events on their way to the stream: by namespace, each batch with the processes it speaks of.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cirri.model.runtimeevents import Process, RuntimeBatch, RuntimeEvent

BATCH = 1000
"""Events of one message."""
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

    def add(self, process: Process, **said: Any) -> Iterator[RuntimeBatch]:
        """Take an event of *process*; gives a batch if one is full now."""
        namespace = process.pod.namespace if process.pod else ""
        batch = self._open.setdefault(namespace, _Batch())
        index = batch.index(process)
        for ancestor in self._ancestors(process):
            batch.index(ancestor)
        batch.events.append(RuntimeEvent(process=index, **said))
        self.count += 1
        if len(batch.events) >= BATCH or batch.bytes >= BATCH_BYTES:
            yield self._close(namespace)

    def flush(self) -> Iterator[RuntimeBatch]:
        """Everything."""
        for namespace in list(self._open):
            yield self._close(namespace)

    def _close(self, namespace: str) -> RuntimeBatch:
        batch = self._open.pop(namespace)
        self._number += 1
        self.count -= len(batch.events)
        times = [event.time for event in batch.events]
        return RuntimeBatch(
            node=self._node,
            instance=self._instance,
            number=self._number,
            namespace=namespace,
            first_ns=min(times),
            last_ns=max(times),
            processes=tuple(batch.processes),
            events=tuple(batch.events),
        )


class _Batch:
    """One that is open."""

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self.events: list[RuntimeEvent] = []
        self.bytes = 0
        self._at: dict[str, int] = {}

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
