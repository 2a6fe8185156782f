"""What the metrics say.  Imported late, as prometheus is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from cirri.dnsproxy.counts import Counts


class CountMetrics(Collector):
    """The counts, when they are scraped."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """Every one."""
        for each in fields(self._counts):
            value = getattr(self._counts, each.name)
            yield CounterMetricFamily(f"cirri_dnsproxy_{each.name}", each.name, value=value)
