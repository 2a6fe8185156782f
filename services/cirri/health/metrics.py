"""What the metrics say of other nodes.  Imported late, as prometheus is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cirri.model import NodeHealth


class Connectivity(Collector):
    """Gauges of the view that *read* gives when it is scraped."""

    def __init__(self, read: Callable[[], NodeHealth]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """How many nodes are cut off, and of each way its state and how long an answer took."""
        labels = ("target_node", "address", "probe")
        status = GaugeMetricFamily(
            "cirri_health_node_connectivity_status",
            "Whether a way to a node answers (1) or not (0)",
            labels=labels,
        )
        latency = GaugeMetricFamily(
            "cirri_health_node_connectivity_latency_seconds", "Of the last answer", labels=labels
        )
        peers = self._read().peers
        for peer in peers:
            for path in peer.paths:
                of = (peer.node, path.address, path.probe)
                if path.state != "unknown":
                    status.add_metric(of, float(path.state == "reachable"))
                if path.state == "reachable":
                    latency.add_metric(of, path.rtt_s)
        cut = sum(1 for peer in peers if peer.state == "unreachable")
        meaning = "Nodes that do not answer ICMP or HTTP at one of their addresses"
        yield GaugeMetricFamily("cirri_health_unreachable_nodes", meaning, value=float(cut))
        yield status
        yield latency
