"""Flows into files, one JSON object a line, as Hubble's exporter writes them.

What is written is decided in the service's loop, with masks; messages are made and written by a thread of
each file, which may be late or fail: what it cannot write is counted and said, and nothing waits for it.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format

from cirri.errors import CirriError
from cirri.flows.choice import choice
from cirri.flows.rotating import RotatingFile
from cirri.history.rows import Table
from cirri.hubble.facts import Place
from cirri.hubble.filters import BadFilter
from cirri.hubble.flows import HERE, Teller
from cirri.hubble.messages import POOL, Flow
from cirri.model.flowexport import DYNAMIC, PATH, STATIC, STDOUT, Export, InvalidExport

QUEUE_ROWS, QUEUE_TABLES = 1 << 16, 1 << 12
"""Flows that wait for their thread, and tables that these are of; more are lost."""
CHUNK_ROWS = 256
"""Flows that are written at once, or lost at once."""
SAY_S = 10.0
"""Between two words about the same trouble."""
STOP_S = 0.3
"""How long the end of the service waits for what is still to be written."""

Say = Callable[..., None]
Tree = dict[str, Any]
"""Of field names, with the fields below, or None: all of them."""


class Exports:
    """The files that the configuration asks for."""

    def __init__(
        self,
        say: Say,
        place: Place = HERE,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._say, self._place, self._clock_ns = say, place, clock_ns
        self._files: dict[Export, ExportFile] = {}
        self._ending: list[tuple[Export, ExportFile]] = []
        """Those that nobody wants any more and that still write what waits."""
        self.written: dict[str, int] = {}
        """Flows by name of the list, since the start."""
        self.lost: dict[tuple[str, str], int] = {}
        """Flows by name of the list and cause: ``queue``: too many waited; ``file``: see the log."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the lists that are written."""
        return tuple(export.name for export in self._files)

    def configure(self, wanted: Iterable[Export]) -> list[InvalidExport]:
        """Write these from now on; those that stay as they were are not touched.  What cannot be had."""
        keep, wrong = list(wanted), []
        for export in [export for export in self._files if export not in keep]:
            self._end(export)
        for export in keep:
            if export not in self._files:
                try:
                    before = [file for ended, file in self._ending if ended.path == export.path]
                    self._files[export] = ExportFile(export, self._say, self._place, before)
                except (BadFilter, NoSuchField) as error:
                    static = export.name == STATIC
                    key = PATH if static else DYNAMIC
                    wrong.append(InvalidExport(key, "" if static else export.name, str(error)))
        return wrong

    def take(self, table: Table) -> None:
        """Write what is wanted of *table*."""
        if not self._files or not len(table.rows):
            return
        now = self._clock_ns()
        for export, file in list(self._files.items()):
            if export.end_ns and now >= export.end_ns:
                file.close_soon()
            else:
                file.take(table)

    def counts(self) -> tuple[Mapping[str, int], Mapping[tuple[str, str], int]]:
        """(flows written by list, flows lost by list and cause), since the start."""
        over = [pair for pair in self._ending if not pair[1].alive]
        self._ending = [pair for pair in self._ending if pair not in over]
        for export, file in over:
            file.add_to(export.name, self.written, self.lost)
        written, lost = dict(self.written), dict(self.lost)
        for export, file in (*self._files.items(), *self._ending):
            file.add_to(export.name, written, lost)
        return written, lost

    def close(self, within_s: float = STOP_S) -> None:
        """Write what is waiting, as far as there is time, and end; the rest is lost."""
        for export in list(self._files):
            self._end(export)
        until = time.monotonic() + within_s
        for _, file in self._ending:
            file.give_up(max(0.0, until - time.monotonic()))

    def _end(self, export: Export) -> None:
        file = self._files.pop(export)
        file.close_soon()
        self._ending.append((export, file))


class ExportFile:
    """One of them.  Raises: BadFilter, NoSuchField."""

    def __init__(
        self, export: Export, say: Say, place: Place = HERE, before: Sequence[ExportFile] = ()
    ) -> None:
        """*before*: those that still write the same file, and are waited for."""
        self._export, self._say, self._place, self._before = export, say, place, before
        self._wanted = choice(export.include, export.exclude, place)
        self._fields = field_tree(export.fields)
        self._write, self._close = _sink(export)
        self.written = 0
        self.lost = {"queue": 0, "file": 0}
        self._waiting: deque[Table] = deque()
        self._rows = 0
        self._turn = threading.Condition()
        self._ending = False
        self._said = 0.0
        self._thread = threading.Thread(target=self._run, name=f"export-{export.name}", daemon=True)
        self._thread.start()

    def take(self, table: Table) -> None:
        """Queue what is wanted of *table*."""
        rows = np.flatnonzero(self._wanted(table))
        if not len(rows):
            return
        with self._turn:
            if self._ending:
                return
            if self._rows + len(rows) > QUEUE_ROWS or len(self._waiting) >= QUEUE_TABLES:
                self.lost["queue"] += len(rows)
                self._complain("flows are exported too slowly", lost=self.lost["queue"])
                return
            self._waiting.append(replace(table, rows=table.rows[rows]))
            self._rows += len(rows)
            self._turn.notify()

    def join(self) -> None:
        """Return when all has been written."""
        self._thread.join()

    def close_soon(self) -> None:
        """End when all that is waiting has been written."""
        with self._turn:
            self._ending = True
            self._turn.notify()

    @property
    def alive(self) -> bool:
        """Whether its thread still writes."""
        return self._thread.is_alive()

    def add_to(self, name: str, written: dict[str, int], lost: dict[tuple[str, str], int]) -> None:
        """Add its counts to those by *name*."""
        written[name] = written.get(name, 0) + self.written
        for cause, count in self.lost.items():
            lost[name, cause] = lost.get((name, cause), 0) + count

    def give_up(self, within_s: float) -> None:
        """What is not written by then is lost and counted."""
        self._thread.join(within_s)
        with self._turn:
            self.lost["queue"] += self._rows
            self._waiting.clear()
            self._rows = 0

    def _run(self) -> None:
        for other in self._before:
            other.join()
        while (table := self._next()) is not None:
            teller, count = Teller(table, self._place), len(table.rows)
            for start in range(0, count, CHUNK_ROWS):
                chunk = range(start, min(start + CHUNK_ROWS, count))
                try:
                    self._write(b"".join(self._line(teller.flow(index)) for index in chunk))
                    self.written += len(chunk)
                except OSError as error:
                    self.lost["file"] += len(chunk)
                    where = self._export.path
                    self._complain("flows cannot be exported", error=f"{where}: {error.strerror or error}")
        self._close()

    def _next(self) -> Table | None:
        with self._turn:
            while not self._waiting and not self._ending:
                self._turn.wait()
            if not self._waiting:
                return None
            table = self._waiting.popleft()
            self._rows -= len(table.rows)
            return table

    def _line(self, flow: Any) -> bytes:
        told = json_format.MessageToDict(flow, preserving_proto_field_name=True, descriptor_pool=POOL)
        node, when = told.get("node_name", ""), told["time"]
        if self._fields:
            told = pruned(told, self._fields)
        line = {"flow": told, "node_name": node, "time": when}
        return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    def _complain(self, event: str, **said: Any) -> None:
        now = time.monotonic()
        if now - self._said >= SAY_S:
            self._said = now
            self._say(event, export=self._export.name, **said)


def _sink(export: Export) -> tuple[Callable[[bytes], Any], Callable[[], None]]:
    if export.path == STDOUT:
        return _to_stdout, lambda: None
    file = RotatingFile(Path(export.path), export.max_bytes, export.backups, compress=export.compress)
    return file.write, file.close


def _to_stdout(lines: bytes) -> None:
    sys.stdout.buffer.write(lines)
    sys.stdout.buffer.flush()


class NoSuchField(CirriError):
    """A path leads nowhere in message ``Flow``."""

    def __init__(self, path: str, name: str) -> None:
        self.path, self.name = path, name
        super().__init__(f"{path!r} is no field of a flow: there is no {name!r}")


def field_tree(paths: Iterable[str]) -> Tree:
    """*paths* as a tree; empty if there are none.  Raises: NoSuchField."""
    tree: Tree = {}
    for path in paths:
        names, message, here = path.split("."), Flow.DESCRIPTOR, tree
        for name in names:
            field = message.fields_by_name.get(name) if message is not None else None
            if field is None:
                raise NoSuchField(path, name)
            message = field.message_type
        for name in names[:-1]:
            below = here.setdefault(name, {})
            if below is None:
                break  # a shorter path has it all
            here = below
        else:
            here[names[-1]] = None
    return tree


def pruned(told: Mapping[str, Any], tree: Tree) -> dict[str, Any]:
    """*told*, with what *tree* names only."""
    return {
        name: pruned(told[name], below) if below else told[name]
        for name, below in tree.items()
        if name in told
    }
