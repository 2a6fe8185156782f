"""Mirror of ``bpf/lib/l2.h``: addresses that a node answers for on its segment."""

from enum import IntFlag
from typing import Any, ClassVar

from cirri.layout.mirror import U16, U32, U64, Address16, Mac, Mirror
from cirri.layout.scalar import U32_NUMBER
from cirri.layout.spec import NO_PREALLOC, MapSpec, MapType

HEADER = "lib/l2.h"
NO_MAC = bytes(6)


class L2Flag(IntFlag):
    """``enum l2_flag``."""

    YIELDED = 1
    """Another node announced the address: this one is silent."""


class L2Key(Mirror, frozen=True, kw_only=True):
    """An address and the device on which it is asked for."""

    c_name: ClassVar[str] = "l2_key"
    header: ClassVar[str] = HEADER

    address: Address16
    ifindex: U32
    pad: U32 = 0


class L2Value(Mirror, frozen=True, kw_only=True):
    """What is answered, and what came of it."""

    c_name: ClassVar[str] = "l2_value"
    header: ClassVar[str] = HEADER

    answers: U64 = 0
    rivals: U64 = 0
    """Announcements of the address by others."""
    mac: Mac
    rival: Mac = NO_MAC
    """Who announced it last."""
    flags: U32 = 0


class L2Peer(Mirror, frozen=True, kw_only=True):
    """A MAC address by which another node of the cluster announces."""

    c_name: ClassVar[str] = "l2_peer"
    header: ClassVar[str] = HEADER

    mac: Mac
    pad: U16 = 0


L2_RESPONDER: MapSpec[Any, Any] = MapSpec(
    "cirri_l2_responder", HEADER, MapType.HASH, L2Key, L2Value, 65536, NO_PREALLOC
)
L2_PEERS: MapSpec[Any, Any] = MapSpec(
    "cirri_l2_peers", HEADER, MapType.HASH, L2Peer, U32_NUMBER, 4096, NO_PREALLOC
)
