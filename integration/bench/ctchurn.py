"""Row B31: a byte there and back while the table of connections holds a million others, and 20,000 a second
come and are swept away.

The others are written by a process on the other CPU, which also sweeps as the datapath service does.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path as FilePath
from typing import Any

from integration.bench.cirri_paths import local_pods
from integration.bench.datapath import account, line, p99, series_of, why_void
from integration.bench.machine import OTHER, PREFIX, BenchError
from integration.bench.pods import BPFFS
from integration.bench.report import Line, Report
from integration.bench.rounds import Clients, Effort, Series, pooled
from integration.bench.stats import Goal, bootstrap_percentile

from cirri.datapath.conntrack import collect
from cirri.layout import CT, CtKey, CtValue
from cirri.maps import BpfMap, open_pinned

LIVE, ROOM = 1_000_000, 1_500_000
"""Connections that stay, and the size of their table: with those that come and go it is full to 80 %, or
90 % where sweeps take long."""
PER_S, LIFE_S, SWEEP_S = 20_000, 2.0, 5.0
TURN_S = 0.01
LIVE_NET, NEW_NET = 11, 12
"""First byte of the clients' addresses."""
EMPTY, AGAIN, FULL = "empty table", "empty table again", "a million, 20 k/s come and go"
REFERENCES = {name: tuple(f"{name} ({copy})" for copy in "ab") for name in (EMPTY, AGAIN)}
SHARE = 0.6


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row B31; *effort* of fewer than 15 rounds means a tenth of the connections."""
    live = LIVE if effort.rounds >= 15 else LIVE // 10
    with ExitStack() as stack:
        names = chain.from_iterable(REFERENCES.values())
        up = [stack.enter_context(local_pods(name, f"e{at}")) for at, name in enumerate(names)]
        up.append(stack.enter_context(local_pods(FULL, "full", sizes={CT.name: ROOM})))
        clients = Clients(stack, up, effort.families)
        folder = BPFFS / f"{PREFIX}full"
        effort = replace(effort, seconds=SHARE * effort.seconds)
        with _others(folder, live) as told:
            # Sweeping between rounds is that process's work: here it would read a million entries.
            up = [replace(each, tidy=None) if each.name == FULL else each for each in up]
            for family in effort.families:
                if series := series_of(report, rows[0], clients, up, "rr", family, effort):
                    account(report, rows[0], series, (FULL,))
                    series = pooled(series, REFERENCES)
                    report.lines += lines(rows[0], series)
                    if void := why_void(series, EMPTY, AGAIN):
                        report.failures.append(f"{rows[0]} IPv{family}: void, {void}")
        report.raw[f"{rows[0]} others"] = told
        report.lines += lines_of_others(rows[0], told, live)


def lines(row: str, series: Series) -> Iterator[Line]:
    """The lines of one family."""
    why = why_void(series, EMPTY, AGAIN)
    yield line(row, series, EMPTY, EMPTY)
    yield line(row, series, AGAIN, EMPTY)
    yield line(row, series, FULL, EMPTY, Goal(at_least=0.98), why)
    yield p99(row, series, FULL, EMPTY, Goal(at_most=1.1), why)


def lines_of_others(row: str, told: dict[str, Any], live: int) -> Iterator[Line]:
    """What became of the other connections."""
    pace = told["written"] / told["seconds"]
    yield Line(row, "new connections a second beside it", "", _exact(pace), unit="/s")
    sweeps = [each * 1000 for each in told["sweeps"]]
    what = f"a sweep of {live} that stay and {told['written']} that went"
    yield Line(row, f"{what}: p50", f"{len(sweeps)} sweeps", bootstrap_percentile(sweeps, 0.5), unit=" ms")
    yield Line(row, f"live connections evicted, of {live}", "", _exact(told["evicted"]), unit="",
               goal=Goal(at_most=0))  # fmt: skip


def _exact(value: float) -> Any:
    return bootstrap_percentile([value], 0.5)


# -- the others -------------------------------------------------------------------


@contextmanager
def _others(folder: FilePath, live: int) -> Iterator[dict[str, Any]]:
    """*live* connections in the table of *folder*, and others that come and go for the length of the block;
    afterwards what is yielded says how that went."""
    here, there = get_context("fork").Pipe()
    process = get_context("fork").Process(target=_work, args=(folder, live, there), daemon=True)
    process.start()
    try:
        if not here.poll(60) or here.recv() != "ready":
            raise BenchError("the table of connections cannot be filled")
        told: dict[str, Any] = {}
        yield told
        here.send("stop")
        if not here.poll(60):
            raise BenchError("who sweeps the table of connections does not answer")
        told.update(here.recv())
        process.join()
    finally:
        process.kill()
        process.join()


def _work(folder: FilePath, live: int, pipe: Connection) -> None:
    os.sched_setaffinity(0, {OTHER})
    with open_pinned(folder, CT) as table:
        for at in range(0, live, PER_S):
            _write(table, LIVE_NET, at, min(PER_S, live - at), life_s=86_400)
        pipe.send("ready")
        began = swept = time.monotonic()
        written, sweeps = 0, []
        while not pipe.poll():
            now = time.monotonic()
            if (due := int((now - began) * PER_S) - written) > 0:
                _write(table, NEW_NET, written, due, life_s=LIFE_S)
                written += due
            if now - swept > SWEEP_S:
                collect(table, time.clock_gettime_ns(time.CLOCK_MONOTONIC))
                swept = time.monotonic()
                sweeps.append(swept - now)
            time.sleep(TURN_S)
        seconds = time.monotonic() - began
        left = sum(1 for key, _ in table.items_raw() if key[12] == LIVE_NET)
        pipe.send({"written": written, "seconds": seconds, "sweeps": sweeps, "evicted": live - left})


def _write(table: BpfMap[CtKey, CtValue], net: int, first: int, count: int, *, life_s: float) -> None:
    """Connections number *first* and the following, from addresses of *net*/8."""
    template = CtKey.of("0.0.0.0", 40000, "10.52.1.3", 80, 6).pack()
    rest, value = (
        template[16:],
        CtValue(expires=time.clock_gettime_ns(time.CLOCK_MONOTONIC) + int(life_s * 1e9)),
    )
    mapped = struct.pack("!10xHB", 0xFFFF, net)
    keys = b"".join(mapped + (n & 0xFF_FFFF).to_bytes(3, "big") + rest for n in range(first, first + count))
    table.put_many_raw(keys, value.pack() * count)
