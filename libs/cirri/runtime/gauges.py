"""Numbers that a service reads from its own state when it is scraped.  Imported late, as prometheus is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Gauges(Collector):
    """Gauges of *service*: by name what they mean and how to read them."""

    def __init__(self, service: str, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        self._service, self._gauges = service, dict(gauges)

    def collect(self) -> Iterator[Metric]:
        """``cirri_SERVICE_NAME`` for each."""
        for name, (meaning, read) in self._gauges.items():
            yield GaugeMetricFamily(f"cirri_{self._service}_{name}", meaning, value=float(read()))
