"""Runtime events into a file of the node, one JSON object a line, as Tetragon's exporter writes them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from cirri.history.runtimejson import record, rfc3339
from cirri.history.runtimewire import spread
from cirri.history.writing import Line, LineWriter, Say, sink
from cirri.manifests.runtimeexport import RuntimeExport
from cirri.manifests.runtimefields import fields_of
from cirri.manifests.runtimefilter import wanted
from cirri.model.runtimeevents import RuntimeBatch

STOP_S = 0.3
"""How long the end of the service waits for what is still to be written."""
MINUTE_NS = 60 * 10**9
CAUSES = ("queue", "file")


class Exporter:
    """The file that the configuration asks for, if it does.

    Every event that it is given is counted once: written, filtered, limited or lost.
    """

    def __init__(self, say: Say, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._say, self._clock_ns = say, clock_ns
        self._file: _File | None = None
        self._over: list[_File] = []
        """Those that nobody wants any more."""

    def configure(self, export: RuntimeExport | None) -> None:
        """Write this file from now on; one that stays as it was is not touched."""
        if self._file is not None and self._file.export == export:
            return
        self._end()
        if export is not None:
            before = [file.lines for file in self._over if file.export.path == export.path]
            self._file = _File(export, self._say, self._clock_ns, before)

    def take(self, batch: RuntimeBatch) -> None:
        """Have written what is wanted of *batch*."""
        if self._file is not None:
            self._file.lines.put(batch, batch.count)

    def counts(self) -> Mapping[str, int]:
        """Events since the start: ``written``, ``filtered``, ``limited``, ``lost_queue``, ``lost_file``."""
        files = [*self._over, *([self._file] if self._file is not None else [])]
        return {
            "written": sum(file.lines.written for file in files),
            "filtered": sum(file.filtered for file in files),
            "limited": sum(file.limited for file in files),
            **{f"lost_{cause}": sum(file.lines.lost[cause] for file in files) for cause in CAUSES},
        }

    def close(self, within_s: float = STOP_S) -> None:
        """Write what is waiting, as far as there is time, and end; the rest is lost."""
        self._end()
        until = time.monotonic() + within_s
        for file in self._over:
            file.lines.give_up(max(0.0, until - time.monotonic()))

    def _end(self) -> None:
        if self._file is not None:
            self._file.lines.close_soon()
            self._over.append(self._file)
            self._file = None


class _File:
    def __init__(
        self,
        export: RuntimeExport,
        say: Say,
        clock_ns: Callable[[], int],
        before: list[LineWriter[RuntimeBatch]],
    ) -> None:
        self.export = export
        self._wanted = wanted(export.allow, export.deny)
        self._fields = fields_of(export.fields)
        self._allowance = Allowance(export.rate, clock_ns)
        self.filtered = 0
        self.limited = 0
        self.lines: LineWriter[RuntimeBatch] = LineWriter(
            "runtime events",
            sink(export.path, export.max_bytes, export.backups, compress=export.compress, mode=export.mode),
            self._told,
            partial(say, export=export.path),
            before,
        )

    def _told(self, batch: RuntimeBatch) -> Iterator[Line]:
        whole = spread(batch)
        for event in whole.events:
            if not self._wanted(event, whole):
                self.filtered += 1
            elif not self._allowance.take():
                self.limited += 1
            else:
                yield _line(self._fields(record(event, whole))), 1
            if dropped := self._allowance.due():
                info = {"number_of_dropped_process_events": str(dropped)}
                about = {"rate_limit_info": info, "node_name": batch.node, "time": rfc3339(event.time)}
                yield _line(about), 0


class Allowance:
    """Of *rate* events a minute, that many at once; -1: of all."""

    def __init__(self, rate: int, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._rate, self._clock_ns = rate, clock_ns
        self._left, self._at = float(rate), clock_ns()
        self._told_ns = self._at
        self._refused = 0

    def take(self) -> bool:
        """Whether there is one left, which is taken."""
        if self._rate < 0:
            return True
        now = self._clock_ns()
        self._left = min(float(self._rate), self._left + (now - self._at) * self._rate / MINUTE_NS)
        self._at = now
        if self._left < 1:
            self._refused += 1
            return False
        self._left -= 1
        return True

    def due(self) -> int:
        """Once a minute: how many were refused since that was said last, if any."""
        if not self._refused or self._clock_ns() - self._told_ns < MINUTE_NS:
            return 0
        self._told_ns, refused, self._refused = self._clock_ns(), self._refused, 0
        return refused


def _line(told: Mapping[str, object]) -> bytes:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
