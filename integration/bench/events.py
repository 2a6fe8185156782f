"""Row B15: what flow events cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import product

from integration.bench.cirri_paths import Node, local_node
from integration.bench.datapath import account, line, series_of, why_void
from integration.bench.paths import Path
from integration.bench.report import Line, Report
from integration.bench.rounds import Clients, Effort, Mode, Series
from integration.bench.stats import Goal
from msgspec.structs import replace as changed

from cirri.layout import EVENT_COUNTER, METRICS, RUNTIME, EventCounter, PolicyDirection, metrics_index
from cirri.layout.tracing import Tracing
from cirri.maps import open_per_cpu, open_pinned

OFF, AGAIN = "events off", "events off again"
AGGREGATED, EACH, EACH_FROM = "aggregated", "each packet", "each packet, and whence"
SETTINGS: Mapping[str, Tracing | None] = {
    OFF: None,
    AGAIN: None,
    AGGREGATED: Tracing(),
    EACH: Tracing(level="low"),
    EACH_FROM: Tracing(level="none"),
}
"""``monitor-aggregation`` is ``medium``, ``low`` and ``none``; None: of a connection the first packet is told
and the end, no other."""
LEVELS = (AGGREGATED, EACH, EACH_FROM)
SLICES = 25
"""In a second of each: what slows the machine down for a tenth of a second slows all of them."""
GOALS: dict[tuple[Mode, str], Goal] = {
    ("rr", AGGREGATED): Goal(at_least=0.995),
    ("rr", EACH): Goal(at_least=0.93),
}
EVENTS = {AGGREGATED: 0, EACH: 2, EACH_FROM: 4}
"""Of each transaction, at least."""


class Observed:
    """Two pods of one node, whose packets are told of as somebody says, from slice to slice.

    So all settings are compared between the same ends: two pairs that are equal in everything differ by a few
    percent, since their memory lies elsewhere.
    """

    def __init__(self, stack: ExitStack, node: Node, path: Path) -> None:
        self._path = path
        self._runtime = stack.enter_context(open_pinned(node.pins, RUNTIME))
        self._metrics = stack.enter_context(open_per_cpu(node.pins, METRICS))
        self._events = stack.enter_context(open_per_cpu(node.pins, EVENT_COUNTER))
        self._counted: dict[str, Counter[str]] = {name: Counter() for name in SETTINGS}
        self._now, self._since = OFF, self._counts()

    def paths(self) -> list[Path]:
        """One for each setting."""
        return [
            replace(
                self._path,
                name=name,
                before=partial(self._turn, name),
                counters=partial(self._told, name),
                tidy=self._path.tidy if name == OFF else None,
            )
            for name in SETTINGS
        ]

    def _turn(self, name: str) -> None:
        """What is counted from now on is of setting *name*."""
        self._bill()
        self._now, tracing = name, SETTINGS[name]
        usual = Tracing(level="none").switches | Tracing(level="low").switches
        runtime = self._runtime[0]
        config = changed(
            runtime,
            flags=runtime.flags & ~usual | (tracing.switches if tracing else 0),
            trace_interval=tracing.ticks if tracing else 0,
            trace_flags=tracing.tcp_flags if tracing else 0,
        )
        self._runtime.put(0, config)

    def _bill(self) -> None:
        now = self._counts()
        self._counted[self._now].update({key: count - self._since[key] for key, count in now.items()})
        self._since = now

    def _counts(self) -> dict[str, int]:
        events = self._events
        forwarded = [self._metrics[metrics_index(0, direction)] for direction in PolicyDirection]
        return {
            "forwarded": sum(value.packets for values in forwarded for value in values),
            "events": sum(events[EventCounter.SUBMITTED]),
            "events_lost": sum(events[EventCounter.LOST]),
        }

    def _told(self, name: str) -> Mapping[str, int]:
        self._bill()
        assert self._path.counters is not None
        return {**self._counted[name], "ct_entries": self._path.counters()["ct_entries"]}


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row B15: pods of one node whose events are aggregated, or told of each packet, against hardly any."""
    with ExitStack() as stack:
        node, path = stack.enter_context(local_node("pods", "events"))
        peers = Observed(stack, node, path).paths()
        effort = replace(effort, slices=SLICES)
        clients = Clients(stack, peers, effort.families)
        modes: tuple[Mode, ...] = ("rr", "crr")
        for mode, family in product(modes, effort.families):
            if series := series_of(report, rows[0], clients, peers, mode, family, effort):
                account(report, rows[0], series, LEVELS)
                report.failures += [f"{rows[0]} {mode} IPv{family}: {said}" for said in untold(series)]
                report.lines += lines(rows[0], series)
                if void := why_void(series, OFF, AGAIN):
                    report.failures.append(f"{rows[0]} {mode} IPv{family}: void, {void}")


def untold(series: Series) -> Iterator[str]:
    """Sentences about settings under which less was told than was to be."""
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
