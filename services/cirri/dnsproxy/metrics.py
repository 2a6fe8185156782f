"""What the metrics say.  Imported late, as prometheus is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cirri.dnsproxy.counts import Counts


class CountMetrics(Collector):
    """The counts, and *gauges* (name -> meaning, value), when they are scraped."""

    def __init__(self, counts: Counts, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        self._counts, self._gauges = counts, gauges

    def collect(self) -> Iterator[Metric]:
        """Every one."""
        for each in fields(self._counts):
            value = getattr(self._counts, each.name)
            yield CounterMetricFamily(f"cirri_dnsproxy_{each.name}", each.name, value=value)
        for name, (meaning, read) in self._gauges.items():
            yield GaugeMetricFamily(f"cirri_dnsproxy_{name}", meaning, value=read())
