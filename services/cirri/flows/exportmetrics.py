"""What the metrics say of files of flows.  Imported late, as prometheus is."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cirri.flows.exporter import Exports


class ExportMetrics(Collector):
    """The counts, when they are scraped."""

    def __init__(self, files: Exports) -> None:
        self._files = files

    def collect(self) -> Iterator[Metric]:
        """Of each list: whether it is written, what was and what was not."""
        active = GaugeMetricFamily("cirri_flows_export_active", "1: flows are written", labels=["export"])
        for name in self._files.names:
            active.add_metric([name], 1)
        written = CounterMetricFamily(
            "cirri_flows_export_written", "Flows written to files", labels=["export"]
        )
        lost = CounterMetricFamily(
            "cirri_flows_export_lost", "Flows that could not be written", labels=["export", "cause"]
        )
        done, failed = self._files.counts()
        for name, count in done.items():
            written.add_metric([name], count)
        for (name, cause), count in failed.items():
            lost.add_metric([name, cause], count)
        yield from (active, written, lost)
