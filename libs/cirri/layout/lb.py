"""Mirror of ``bpf/lib/lb.h``: Services and their backends."""

from typing import ClassVar

from cirri.layout.mirror import U8, U32, U64, Address16, Be16, Mirror, Pad5, Pad6
from cirri.layout.spec import NO_PREALLOC, MapSpec, MapType

HEADER = "lib/lb.h"


class LbServiceKey(Mirror, frozen=True, kw_only=True):
    """A Service's frontend."""

    c_name: ClassVar[str] = "lb_service_key"
    header: ClassVar[str] = HEADER

    address: Address16
    port: Be16
    protocol: U8
    pad: Pad5 = bytes(5)


class LbService(Mirror, frozen=True, kw_only=True):
    """Where its backends stand: slots 0..count-1 of *id*."""

    c_name: ClassVar[str] = "lb_service"
    header: ClassVar[str] = HEADER

    id: U32
    count: U32


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
LB_REVERSE = MapSpec("cirri_lb_reverse", HEADER, MapType.LRU_HASH, LbReverseKey, LbReverse, 65536)
