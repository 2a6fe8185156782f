"""Mirror of ``bpf/lib/natmap.h``: connections that leave under an address of the node's."""

from enum import IntEnum
from typing import ClassVar

from cirri.layout.mirror import U8, U16, U32, U64, Address16, Be16, Mirror, Pad6
from cirri.layout.spec import MapSpec, MapType

HEADER = "lib/natmap.h"
NAT_PORT_FIRST = 49152
"""The ports from here to 65535 are NAT's."""


class NatDirection(IntEnum):
    """``enum nat_direction``."""

    OUT = 0
    """Of a connection that did not get the port which was tried first."""
    BACK = 1
    """Of every connection."""


class NatKey(Mirror, frozen=True, kw_only=True):
    """What a packet looks like, on its way out before it is translated, or on its way back."""

    c_name: ClassVar[str] = "nat_key"
    header: ClassVar[str] = HEADER

    local: Address16
    """OUT: the source, before; BACK: the node's."""
    remote: Address16
    local_port: Be16
    """ICMP: the identifier."""
    remote_port: Be16 = 0
    """ICMP: 0."""
    protocol: U8
    direction: U8
    """:class:`NatDirection`."""
    pad: U16 = 0
    frontend: U32 = 0
    """OUT: as in the value; BACK: 0."""
    pad2: U32 = 0


class NatValue(Mirror, frozen=True, kw_only=True):
    """What it becomes."""

    c_name: ClassVar[str] = "nat_value"
    header: ClassVar[str] = HEADER

    address: Address16
    """OUT: the node's; BACK: the source, before."""
    expires: U64 = 0
    """ns of CLOCK_MONOTONIC; OUT: 0, it is worth what its other entry is."""
    flags: U32 = 0
    """:class:`cirri.layout.CtFlag`."""
    frontend: U32 = 0
    """:attr:`cirri.layout.LbService.frontend` by which the source came; 0: a pod's, masqueraded."""
    port: Be16
    """Of that address."""
    pad: Pad6 = bytes(6)


NAT = MapSpec("cirri_nat", HEADER, MapType.LRU_HASH, NatKey, NatValue, 131072)
