"""Mirror of ``bpf/lib/lb.h``: Services and their backends."""

from enum import IntEnum
from typing import ClassVar

from cirri.layout.mirror import U8, U16, U32, U64, Address16, Be16, Mirror, Pad4, Pad6
from cirri.layout.scalar import U32_NUMBER
from cirri.layout.spec import NO_PREALLOC, MapSpec, MapType

HEADER = "lib/lb.h"


class LbScope(IntEnum):
    """``enum lb_scope``: who asks."""

    INTERNAL = 0
    """Sockets and pods of this node."""
    EXTERNAL = 1
    """What comes from the wire."""


class LbServiceKey(Mirror, frozen=True, kw_only=True):
    """A Service's frontend."""

    c_name: ClassVar[str] = "lb_service_key"
    header: ClassVar[str] = HEADER

    address: Address16
    port: Be16
    protocol: U8
    scope: U8 = LbScope.INTERNAL
    """:class:`LbScope`."""
    pad: Pad4 = bytes(4)


class LbService(Mirror, frozen=True, kw_only=True):
    """Where its backends stand: slots 0..count-1 of *id*."""

    c_name: ClassVar[str] = "lb_service"
    header: ClassVar[str] = HEADER

    id: U32
    frontend: U32
    """From 1; stays the same as long as the frontend is there."""
    count: U32
    affinity_s: U32 = 0
    """A client keeps its backend so long after its last connection; 0: it does not."""


class LbBackendKey(Mirror, frozen=True, kw_only=True):
    """A slot of a Service."""

    c_name: ClassVar[str] = "lb_backend_key"
    header: ClassVar[str] = HEADER

    service: U32
    """:attr:`LbService.id`."""
    slot: U32


class LbBackend(Mirror, frozen=True, kw_only=True):
    """A backend."""

    c_name: ClassVar[str] = "lb_backend"
    header: ClassVar[str] = HEADER

    address: Address16
    port: Be16
    pad: Pad6 = bytes(6)


class LbAliveKey(Mirror, frozen=True, kw_only=True):
    """A backend of a frontend with affinity."""

    c_name: ClassVar[str] = "lb_alive_key"
    header: ClassVar[str] = HEADER

    address: Address16
    frontend: U32
    """:attr:`LbService.frontend`."""
    port: Be16
    pad: U16 = 0


class LbAffinityKey(Mirror, frozen=True, kw_only=True):
    """A client of a frontend: its address, or its network namespace's cookie in the second half."""

    c_name: ClassVar[str] = "lb_affinity_key"
    header: ClassVar[str] = HEADER

    client: Address16
    frontend: U32
    pad: U32 = 0


class LbAffinity(Mirror, frozen=True, kw_only=True):
    """The backend that a client keeps."""

    c_name: ClassVar[str] = "lb_affinity"
    header: ClassVar[str] = HEADER

    address: Address16
    used: U64
    """ns of CLOCK_MONOTONIC."""
    port: Be16
    pad: Pad6 = bytes(6)


class LbReverseKey(Mirror, frozen=True, kw_only=True):
    """A socket and the backend it talks to."""

    c_name: ClassVar[str] = "lb_reverse_key"
    header: ClassVar[str] = HEADER

    cookie: U64
    address: Address16
    port: Be16
    pad: Pad6 = bytes(6)


class LbReverse(Mirror, frozen=True, kw_only=True):
    """The Service as the client knows it."""

    c_name: ClassVar[str] = "lb_reverse"
    header: ClassVar[str] = HEADER

    address: Address16
    port: Be16
    pad: Pad6 = bytes(6)


LB_SERVICES = MapSpec(
    "cirri_lb_services", HEADER, MapType.HASH, LbServiceKey, LbService, 65536, flags=NO_PREALLOC
)
LB_BACKENDS = MapSpec(
    "cirri_lb_backends", HEADER, MapType.HASH, LbBackendKey, LbBackend, 262144, flags=NO_PREALLOC
)
LB_ALIVE = MapSpec("cirri_lb_alive", HEADER, MapType.HASH, LbAliveKey, U32_NUMBER, 262144, flags=NO_PREALLOC)
"""Every value is 1."""
LB_AFFINITY = MapSpec("cirri_lb_affinity", HEADER, MapType.LRU_HASH, LbAffinityKey, LbAffinity, 65536)
LB_REVERSE = MapSpec("cirri_lb_reverse", HEADER, MapType.LRU_HASH, LbReverseKey, LbReverse, 65536)
