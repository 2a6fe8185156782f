"""Mirror of ``bpf/lib/names.h``: which names an endpoint learnt an address under."""

from typing import ClassVar

from cirri.layout.mirror import U32, Address16, Mirror
from cirri.layout.scalar import U32_NUMBER
from cirri.layout.spec import NO_PREALLOC, MapSpec, MapType

HEADER = "lib/names.h"


class NameKey(Mirror, frozen=True, kw_only=True):
    """An address as an endpoint of this node knows it."""

    c_name: ClassVar[str] = "name_key"
    header: ClassVar[str] = HEADER

    endpoint: U32
    """:attr:`EndpointValue.id`."""
    address: Address16


NAMES = MapSpec("cirri_names", HEADER, MapType.HASH, NameKey, U32_NUMBER, 262144, NO_PREALLOC)
"""To the number of a set of names, of :data:`cirri.labels.NAMES_SPACE`."""
