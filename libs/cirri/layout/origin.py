"""Mirror of ``bpf/lib/origin.h``: which process is behind an end of a connection."""

from enum import IntEnum
from typing import ClassVar

from cirri.layout.mirror import NO_ADDRESS, U8, U16, U32, U64, Address16, Be16, Mirror
from cirri.layout.scalar import ADDRESS, U64_NUMBER
from cirri.layout.spec import MapSpec, MapType

HEADER = "lib/origin.h"


class OriginKind(IntEnum):
    """``enum origin_kind``."""

    PAIR = 1
    """Both ends of a TCP connection, as the socket that opened it knows them."""
    SENDER = 2
    """Who opened a connection, or sent, from the local end last."""
    LISTENER = 3
    """Who takes TCP connections there."""


class OriginKey(Mirror, frozen=True, kw_only=True):
    """A socket's own end, and of a pair the other one."""

    c_name: ClassVar[str] = "origin_key"
    header: ClassVar[str] = HEADER

    local: Address16
    """Of a socket that is bound to none: eight bytes 0xff, and the cookie of its network namespace."""
    remote: Address16 = NO_ADDRESS
    local_port: Be16
    """ICMP: the identifier."""
    remote_port: Be16 = 0
    protocol: U8
    kind: U8
    """:class:`OriginKind`."""
    pad: U16 = 0


class Origin(Mirror, frozen=True, kw_only=True):
    """A process; times are ns of CLOCK_BOOTTIME."""

    c_name: ClassVar[str] = "origin"
    header: ClassVar[str] = HEADER

    start: U64
    """Of the process."""
    time: U64
    """When it was behind this end for the first time."""
    rival: U64 = 0
    """When another process was before; 0: none."""
    cookie: U64 = 0
    """Of the socket."""
    pid: U32
    pad: U32 = 0


ORIGINS = MapSpec("cirri_origins", HEADER, MapType.LRU_HASH, OriginKey, Origin, 65536)
ORIGIN_SPACES = MapSpec("cirri_origin_spaces", HEADER, MapType.LRU_HASH, ADDRESS, U64_NUMBER, 8192)
"""Address -> cookie of the network namespace in which it was seen last."""
