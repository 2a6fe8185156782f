"""Mirror of ``bpf/lib/nexthop.h``: hardware addresses by which the uplink reaches an address."""

from typing import ClassVar

from cirri.layout.mirror import U32, U64, Address16, Mac, Mirror
from cirri.layout.scalar import U32_NUMBER
from cirri.layout.spec import MapSpec, MapType

HEADER = "lib/nexthop.h"


class Nexthop(Mirror, frozen=True, kw_only=True):
    """What one CPU remembers for a moment."""

    c_name: ClassVar[str] = "nexthop"
    header: ClassVar[str] = HEADER

    address: Address16
    expires: U64
    """ns of CLOCK_MONOTONIC."""
    to: Mac
    source: Mac
    pad: U32 = 0


NEXTHOPS = MapSpec("cirri_nexthops", HEADER, MapType.PERCPU_ARRAY, U32_NUMBER, Nexthop, 4096)
