"""Mirror of ``bpf/lib/metrics.h``: packets and bytes by outcome and direction."""

from collections.abc import Iterable
from typing import ClassVar, Self

from cirri.layout.mirror import U64, Mirror
from cirri.layout.scalar import U32_NUMBER
from cirri.layout.spec import MapSpec, MapType

HEADER = "lib/metrics.h"


class MetricsValue(Mirror, frozen=True, kw_only=True):
    """Counters of one CPU."""

    c_name: ClassVar[str] = "metrics"
    header: ClassVar[str] = HEADER

    packets: U64 = 0
    bytes: U64 = 0

    @classmethod
    def sum(cls, values: "Iterable[MetricsValue]") -> Self:
        """All CPUs together."""
        packets = total = 0
        for value in values:
            packets += value.packets
            total += value.bytes
        return cls(packets=packets, bytes=total)


def metrics_index(reason: int, direction: int) -> int:
    """Index of drop *reason* (0: forwarded) and *direction*."""
    return reason * 4 + direction


def metrics_of(index: int) -> tuple[int, int]:
    """(reason, direction) of *index*: inverse of :func:`metrics_index`."""
    return divmod(index, 4)


METRICS = MapSpec("cirri_metrics", HEADER, MapType.PERCPU_ARRAY, U32_NUMBER, MetricsValue, 1024)
