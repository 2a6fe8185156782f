"""Mirror of ``bpf/lib/fragment.h``: the ports that a datagram's first fragment carried."""

from typing import ClassVar

from cirri.layout.mirror import U8, Address16, Be16, Be32, Mirror, Pad3
from cirri.layout.spec import MapSpec, MapType

HEADER = "lib/fragment.h"


class FragmentKey(Mirror, frozen=True, kw_only=True):
    """A datagram in fragments."""

    c_name: ClassVar[str] = "fragment_key"
    header: ClassVar[str] = HEADER

    source: Address16
    destination: Address16
    id: Be32 = 0
    """Identification: 16 bits in IPv4, 32 in IPv6."""
    protocol: U8 = 0
    pad: Pad3 = b"\0\0\0"


class FragmentValue(Mirror, frozen=True, kw_only=True):
    """Its ports."""

    c_name: ClassVar[str] = "fragment_value"
    header: ClassVar[str] = HEADER

    source_port: Be16 = 0
    destination_port: Be16 = 0


FRAGMENTS = MapSpec("cirri_fragments", HEADER, MapType.LRU_HASH, FragmentKey, FragmentValue, 8192)
