"""Flows into files, one JSON object a line, as Hubble's exporter writes them.

What is written is decided in the service's loop, with masks; messages are made and written by a thread of
each file, which may be late or fail: what it cannot write is counted and said, and nothing waits for it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from google.protobuf import json_format

from cirri.errors import CirriError
from cirri.flows.choice import choice
from cirri.history.rows import Table
from cirri.history.writing import Line, LineWriter, Say, sink
from cirri.hubble.facts import Place
from cirri.hubble.filters import BadFilter
from cirri.hubble.flows import HERE, Teller
from cirri.hubble.messages import POOL, Flow
from cirri.model.flowexport import DYNAMIC, PATH, STATIC, Export, InvalidExport

STOP_S = 0.3
"""How long the end of the service waits for what is still to be written."""

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
                file.lines.close_soon()
            else:
                file.take(table)

    def counts(self) -> tuple[Mapping[str, int], Mapping[tuple[str, str], int]]:
        """(flows written by list, flows lost by list and cause), since the start."""
        over = [pair for pair in self._ending if not pair[1].lines.alive]
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
            file.lines.give_up(max(0.0, until - time.monotonic()))

    def _end(self, export: Export) -> None:
        file = self._files.pop(export)
        file.lines.close_soon()
        self._ending.append((export, file))


class ExportFile:
    """One of them.  Raises: BadFilter, NoSuchField."""

    def __init__(
        self, export: Export, say: Say, place: Place = HERE, before: Sequence[ExportFile] = ()
    ) -> None:
        """*before*: those that still write the same file, and are waited for."""
        self._place = place
        self._wanted = choice(export.include, export.exclude, place)
        self._fields = field_tree(export.fields)
        self.lines: LineWriter[Table] = LineWriter(
            "flows",
            sink(export.path, export.max_bytes, export.backups, compress=export.compress),
            self._told,
            partial(say, export=export.name),
            [file.lines for file in before],
        )

    def take(self, table: Table) -> None:
        """Queue what is wanted of *table*."""
        rows = np.flatnonzero(self._wanted(table))
        if len(rows):
            self.lines.put(replace(table, rows=table.rows[rows]), len(rows))

    def add_to(self, name: str, written: dict[str, int], lost: dict[tuple[str, str], int]) -> None:
        """Add its counts to those by *name*."""
        written[name] = written.get(name, 0) + self.lines.written
        for cause, count in self.lines.lost.items():
            lost[name, cause] = lost.get((name, cause), 0) + count

    def _told(self, table: Table) -> Iterator[Line]:
        teller = Teller(table, self._place)
        return ((self._line(teller.flow(index)), 1) for index in range(len(table.rows)))

    def _line(self, flow: Any) -> bytes:
        told = json_format.MessageToDict(flow, preserving_proto_field_name=True, descriptor_pool=POOL)
        node, when = told.get("node_name", ""), told["time"]
        if self._fields:
            told = pruned(told, self._fields)
        line = {"flow": told, "node_name": node, "time": when}
        return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


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
