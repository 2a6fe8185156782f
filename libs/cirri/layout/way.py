"""Mirror of ``bpf/lib/way.h``: by which next hops tunnels' packets leave."""

from typing import ClassVar

from cirri.layout.mirror import U64, Be32, Mirror
from cirri.layout.scalar import U32_NUMBER
from cirri.layout.spec import MapSpec, MapType

HEADER = "lib/way.h"


class Way(Mirror, frozen=True, kw_only=True):
    """What one CPU remembers for a moment."""

    c_name: ClassVar[str] = "way"
    header: ClassVar[str] = HEADER

    node: Be32
    """IPv4 address."""
    next: Be32
    """IPv4 address; 0: the node is not reached by the uplink."""
    expires: U64
    """ns of CLOCK_MONOTONIC."""


WAYS = MapSpec("cirri_ways", HEADER, MapType.PERCPU_ARRAY, U32_NUMBER, Way, 1024)
