"""Row B15: what flow events cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, product

from integration.bench.cirri_paths import local_pods
from integration.bench.datapath import account, line, series_of, why_void
from integration.bench.report import Line, Report
from integration.bench.rounds import Clients, Effort, Mode, Series, pooled
from integration.bench.stats import Goal

from cirri.layout.tracing import Tracing

OFF, AGAIN = "events off", "events off again"
AGGREGATED, EACH, EACH_FROM = "aggregated", "each packet", "each packet, and whence"
LEVELS: Mapping[str, Tracing] = {
    AGGREGATED: Tracing(),
    EACH: Tracing(level="low"),
    EACH_FROM: Tracing(level="none"),
}
"""``monitor-aggregation`` is ``medium``, ``low`` and ``none``."""
REFERENCES = {name: tuple(f"{name} ({copy})" for copy in "ab") for name in (OFF, AGAIN)}
"""Each is the mean of two equal paths, in which a connection's first packet is told and its end, no other."""
SHARE = 0.4
"""Length of a sample, of what was asked for: there are seven paths."""
GOALS: dict[tuple[Mode, str], Goal] = {
    ("rr", AGGREGATED): Goal(at_least=0.995),
    ("rr", EACH): Goal(at_least=0.93),
}
EVENTS = {AGGREGATED: 0, EACH: 2, EACH_FROM: 4}
"""Of each transaction, at least."""


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row B15: pods of one node whose events are aggregated, or told of each packet, against hardly any."""
    with ExitStack() as stack:
        peers = [
            stack.enter_context(each)
            for each in (
                *(
                    local_pods(name, f"e{at}", tracing=None)
                    for at, name in enumerate(chain(*REFERENCES.values()))
                ),
                *(
                    local_pods(name, f"t{at}", tracing=tracing)
                    for at, (name, tracing) in enumerate(LEVELS.items())
                ),
            )
        ]
        effort = replace(effort, seconds=SHARE * effort.seconds)
        clients = Clients(stack, peers, effort.families)
        modes: tuple[Mode, ...] = ("rr", "crr")
        for mode, family in product(modes, effort.families):
            if series := series_of(report, rows[0], clients, peers, mode, family, effort):
                account(report, rows[0], series, tuple(LEVELS))
                report.failures += [f"{rows[0]} {mode} IPv{family}: {said}" for said in untold(series)]
                series = pooled(series, REFERENCES)
                report.lines += lines(rows[0], series)
                if void := why_void(series, OFF, AGAIN):
                    report.failures.append(f"{rows[0]} {mode} IPv{family}: void, {void}")


def untold(series: Series) -> Iterator[str]:
    """Sentences about paths that told less than they were to tell."""
    for name, events in EVENTS.items():
        counted, carried = series.counted[name]["events"], series.transactions(name)
        if counted < events * carried:
            yield f"{name}: only {counted} events for {carried} transactions"


def lines(row: str, series: Series) -> Iterator[Line]:
    """The lines of one mode and family."""
    why = why_void(series, OFF, AGAIN)
    yield line(row, series, AGAIN, OFF)
    for name in LEVELS:
        yield line(row, series, name, OFF, GOALS.get((series.mode, name)), why)
