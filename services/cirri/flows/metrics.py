"""Metrics of flows, as Prometheus reads them: counted from tables of rows, configured while it runs.

They are written out here and not by ``prometheus_client``, which takes fifty times as long: as long as the
kernel's ring of events has room for at full load.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cirri.flows.choice import choice
from cirri.flows.columns import Mask, View, context_labels, distinct
from cirri.flows.families import METRICS
from cirri.flows.metric import Metric, Picked
from cirri.history.rows import Table
from cirri.hubble.facts import Place, Test
from cirri.hubble.filters import BadFilter
from cirri.hubble.flows import HERE
from cirri.model.flowmetrics import DYNAMIC, Family, InvalidMetrics
from cirri.runtime.health import Page

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds; those of Prometheus' clients."""
SERIES_MAX = 50_000
"""Of all metrics together; what would make more is counted as such, and in no series."""
GONE_S = 60.0
"""A pod's series outlive it so long."""
LOST_SOURCES = {"ring": "perf_event_ring_buffer", "reader": "observer_events_queue"}
"""Causes of :attr:`cirri.model.flows.FlowBatch.lost` in Hubble's words; others keep their own."""


PAGE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class _Room:
    """How many more series there may be."""

    def __init__(self, series: int) -> None:
        self.left = series


class _Series:
    """One metric of one family: a count for each combination of labels that was seen."""

    def __init__(self, metric: Metric, family: Family, room: _Room) -> None:
        self.metric, self.family, self._room = metric, family, room
        self.labels = (*metric.own_labels(family.options), *context_labels(family))
        self.counts: dict[tuple[str, ...], int] = {}
        self.histograms: dict[tuple[str, ...], list[float]] = {}
        """Counts of each bucket and of what is above, then the sum."""
        self._named: dict[tuple[str, ...], str] = {}
        """How the series is written: ``{label="value",...}``."""
        self.left_out = 0
        """What was not counted, for want of room."""
        self._pods = list(_pod_labels(self.labels, family))

    def take(self, view: View, mask: Mask | None) -> None:
        """Count the rows of *view* where *mask* holds (None: everywhere)."""
        picked = self.metric.pick(view, self.family.options)
        contexts = self.family_columns(view, picked)
        columns = [*picked.labels, *contexts]
        kept = np.arange(len(picked.rows)) if mask is None else np.flatnonzero(mask[picked.rows])
        if not len(kept):
            return
        columns = [column.at(kept) for column in columns]
        if self.metric.histogram:
            self._observe(columns, [picked.seconds[i] for i in kept.tolist()])
            return
        rows, counts = distinct(columns, len(kept))
        texts = ([column.texts[code] for code in column.codes[rows].tolist()] for column in columns)
        for key, count in zip(zip(*texts, strict=True), counts.tolist(), strict=True):
            if key in self.counts:
                self.counts[key] += count
            elif self._begin(key, count):
                self.counts[key] = count

    def family_columns(self, view: View, picked: Picked) -> list[Any]:
        """The labels that every metric of the family has."""
        contexts = view.contexts(self.family, swapped=self.metric.answers)
        return [column.at(picked.rows) for column in contexts]

    def _observe(self, columns: Sequence[Any], seconds: Sequence[float]) -> None:
        buckets = np.searchsorted(BUCKETS, seconds).tolist()
        texts = ([column.texts[code] for code in column.codes.tolist()] for column in columns)
        for key, bucket, took in zip(zip(*texts, strict=True), buckets, seconds, strict=True):
            if key not in self.histograms:
                if not self._begin(key, 1):
                    continue
                self.histograms[key] = [0.0] * (len(BUCKETS) + 2)
            self.histograms[key][bucket] += 1
            self.histograms[key][-1] += took

    def _begin(self, key: tuple[str, ...], count: int) -> bool:
        """Whether there is room for one more series."""
        if self._room.left <= 0:
            self.left_out += count
            return False
        self._room.left -= 1
        values = [value.translate(_ESCAPES) for value in key]
        pairs = (f'{label}="{value}"' for label, value in zip(self.labels, values, strict=True))
        self._named[key] = f"{{{','.join(pairs)}}}"
        return True

    def forget(self, pods: frozenset[tuple[str, str]]) -> None:
        """End the series of these (namespace, pod)."""
        series: dict[tuple[str, ...], Any]
        for series in (self.counts, self.histograms):
            for key in [key for key in series if any(pod_of(key) in pods for pod_of in self._pods)]:
                del series[key], self._named[key]
                self._room.left += 1

    def release(self) -> None:
        """It is counted no more."""
        self._room.left += len(self._named)

    def lines(self) -> Iterator[str]:
        """For Prometheus."""
        name, kind = self.metric.name, "histogram" if self.metric.histogram else "counter"
        full = name if self.metric.histogram else f"{name}_total"
        yield f"# HELP {full} {self.metric.meaning}\n# TYPE {full} {kind}\n"
        named = self._named
        yield "".join([f"{full}{named[key]} {count}\n" for key, count in self.counts.items()])
        for key, cells in self.histograms.items():
            labels, below = named[key], 0.0
            for bound, count in zip((*BUCKETS, "+Inf"), cells, strict=False):
                below += count
                yield f'{name}_bucket{{le="{bound}",{labels[1:]} {below}\n'
            yield f"{name}_count{labels} {below}\n{name}_sum{labels} {cells[-1]}\n"


class FlowMetrics:
    """What ``hubble-metrics`` asks for.  Nothing in it waits or fails because of what rows say."""

    def __init__(
        self,
        lost: Callable[[], Mapping[str, int]] = dict,
        place: Place = HERE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*lost*: flows by cause, since the start."""
        self._lost, self._place, self._clock = lost, place, clock
        self._room = _Room(SERIES_MAX)
        self._series: dict[Family, list[_Series]] = {}
        self._filters: dict[Family, Test | None] = {}
        self._gone: dict[tuple[str, str], float] = {}

    @property
    def families(self) -> tuple[Family, ...]:
        """That are counted."""
        return tuple(self._series)

    def configure(self, families: Iterable[Family]) -> list[InvalidMetrics]:
        """Count *families* from now on; those that stay as they were go on counting.  What cannot be had."""
        wanted = list(families)
        wrong = []
        for family in [family for family in self._series if family not in wanted]:
            for series in self._series.pop(family):
                series.release()
            del self._filters[family]
        for family in wanted:
            if family in self._series:
                continue
            try:
                filtered = family.include or family.exclude
                test = choice(family.include, family.exclude, self._place) if filtered else None
                self._filters[family] = test
            except BadFilter as error:
                wrong.append(InvalidMetrics(DYNAMIC, family.name, str(error)))
                continue
            self._series[family] = [_Series(metric, family, self._room) for metric in METRICS[family.name]]
        return wrong

    def take(self, table: Table) -> None:
        """Count the rows of *table*."""
        if not self._series or not len(table.rows):
            return
        self._forget()
        view = View(table)
        for family, metrics in self._series.items():
            matches = self._filters[family]
            mask = matches(table) if matches else None
            for series in metrics:
                series.take(view, mask)

    def pod_gone(self, namespace: str, name: str) -> None:
        """This pod was deleted."""
        self._gone[namespace, name] = self._clock() + GONE_S

    def pod_here(self, namespace: str, name: str) -> None:
        """There is (again) a pod of this name."""
        self._gone.pop((namespace, name), None)

    def page(self) -> Page:
        """All of them."""
        return Page(200, "".join(self._lines()).encode(), PAGE)

    def _lines(self) -> Iterator[str]:
        if not self._series:
            return
        self._forget()
        every = [series for metrics in self._series.values() for series in metrics]
        for series in every:
            yield from series.lines()
        full = "cirri_flows_metrics_left_out_total"
        yield f"# HELP {full} Flows in no series, for want of room\n# TYPE {full} counter\n"
        for series in every:
            yield f'{full}{{metric="{series.metric.name}"}} {series.left_out}\n'
        full = "hubble_lost_events_total"
        yield f"# HELP {full} Number of lost events\n# TYPE {full} counter\n"
        for cause, count in self._lost().items():
            yield f'{full}{{source="{LOST_SOURCES.get(cause, cause)}"}} {count}\n'

    def _forget(self) -> None:
        now = self._clock()
        if pods := frozenset(pod for pod, until in self._gone.items() if until <= now):
            for pod in pods:
                del self._gone[pod]
            for metrics in self._series.values():
                for series in metrics:
                    series.forget(pods)


_PodOf = Callable[[tuple[str, ...]], tuple[str, str]]


def _pod_labels(labels: Sequence[str], family: Family) -> Iterator[_PodOf]:
    """What names a pod in the labels of a series: functions from the labels' values to (namespace, pod)."""
    contexts = {
        "source": (family.source, family.source_egress, family.source_ingress),
        "destination": (family.destination, family.destination_egress, family.destination_ingress),
    }
    for side, kinds in contexts.items():
        if any("pod" in some for some in kinds):
            yield _slashed(labels.index(side))
        if f"{side}_namespace" in labels and f"{side}_pod" in labels:
            yield _paired(labels.index(f"{side}_namespace"), labels.index(f"{side}_pod"))


def _slashed(at: int) -> _PodOf:
    def pod(key: tuple[str, ...]) -> tuple[str, str]:
        namespace, _, name = key[at].partition("/")
        return namespace, name

    return pod


def _paired(namespace: int, name: int) -> _PodOf:
    return lambda key: (key[namespace], key[name])
