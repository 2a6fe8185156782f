"""Metrics of the bridge."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client import Metric

    from cirri.kubernetes.bridge.bridge import Bridge
    from cirri.kubernetes.bridge.writer import Writer


class Gauges(Collector):
    """What each kind's watch is doing."""

    def __init__(self, bridge: Bridge, writer: Writer) -> None:
        self._bridge, self._writer = bridge, writer

    def collect(self) -> Iterator[Metric]:
        """As Prometheus asks for it."""
        name = "cirri_kubernetes_api_"
        watching = GaugeMetricFamily(name + "watching", "1: the kind is watched now.", labels=["kind"])
        silent = GaugeMetricFamily(
            name + "silent_seconds",
            "Since the API server last said anything about the kind.",
            labels=["kind"],
        )
        objects = GaugeMetricFamily(name + "objects", "Objects of the kind.", labels=["kind"])
        events = CounterMetricFamily(name + "events", "Events of watches.", labels=["kind"])
        requests = CounterMetricFamily(
            name + "requests", "Lists and watches that were asked for.", labels=["kind"]
        )
        lists = CounterMetricFamily(name + "lists", "Lists that were read whole.", labels=["kind"])
        now = asyncio.get_running_loop().time()
        for kind, each in self._bridge.following.items():
            health, reflector = each.health, each.reflector
            watching.add_metric([kind], health.watching)
            if health.heard_s > 0:
                silent.add_metric([kind], now - health.heard_s)
            objects.add_metric([kind], len(reflector))
            events.add_metric([kind], health.events)
            requests.add_metric([kind], health.requests)
            lists.add_metric([kind], reflector.lists)
        writes = CounterMetricFamily(name + "writes", "Writes that the API server has taken.")
        writes.add_metric([], self._writer.writes)
        failures = CounterMetricFamily(name + "write_failures", "Writes that are asked for again.")
        failures.add_metric([], self._writer.failures)
        waiting = GaugeMetricFamily(name + "writes_waiting", "Objects that wait to be written.")
        waiting.add_metric([], len(self._writer.wants))
        yield from (writes, failures, waiting)
        yield from (watching, silent, objects, events, requests, lists)
