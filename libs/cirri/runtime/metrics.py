"""Metrics that every service has: how it stands with the bus.  Imported when first asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cirri.kv import Bus


def resident_bytes() -> int:
    """Resident memory of this process, from ``/proc/self/status``."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


class BusMetrics(Collector):
    """Tables, publishers and the connection of *bus*, read when they are scraped."""

    def __init__(self, service: str, bus: Bus) -> None:
        self._service, self._bus = service, bus

    def collect(self) -> Iterator[Metric]:
        """Every metric, labelled by bucket and pattern."""
        name = f"cirri_{self._service}"
        up = GaugeMetricFamily(f"{name}_bus_connected", "1 while there is a connection to the bus")
        up.add_metric([], float(self._bus.connected))
        yield up
        connects = CounterMetricFamily(f"{name}_bus_connections", "Connections made to the bus")
        connects.add_metric([], self._bus.link.generation)
        yield connects
        rss = GaugeMetricFamily(f"{name}_resident_bytes", "Resident memory")
        rss.add_metric([], resident_bytes())
        yield rss
        labels = ["bucket", "pattern"]
        keys = GaugeMetricFamily(f"{name}_table_keys", "Values held", labels=labels)
        revision = GaugeMetricFamily(f"{name}_table_revision", "Last revision folded in", labels=labels)
        stale = GaugeMetricFamily(f"{name}_table_stale", "1 while the contents may be behind", labels=labels)
        resyncs = CounterMetricFamily(f"{name}_table_snapshots", "Snapshots begun", labels=labels)
        bad = CounterMetricFamily(f"{name}_table_bad_values", "Values that could not be read", labels=labels)
        for table in self._bus.tables:
            at = [table.bucket.name, table.pattern]
            keys.add_metric(at, len(table))
            revision.add_metric(at, table.revision)
            stale.add_metric(at, float(table.stale))
            resyncs.add_metric(at, table.resyncs)
            bad.add_metric(at, table.bad_values)
        yield from (keys, revision, stale, resyncs, bad)
        pending = GaugeMetricFamily(f"{name}_publisher_pending", "Keys not yet stored", labels=["bucket"])
        writes = CounterMetricFamily(f"{name}_publisher_writes", "Messages stored", labels=["bucket"])
        rebuilds = CounterMetricFamily(
            f"{name}_publisher_rebuilds", "Times the store had lost state", labels=["bucket"]
        )
        for publisher in self._bus.publishers:
            pending.add_metric([publisher.bucket.name], publisher.pending)
            writes.add_metric([publisher.bucket.name], publisher.writes)
            rebuilds.add_metric([publisher.bucket.name], publisher.rebuilds)
        yield from (pending, writes, rebuilds)
