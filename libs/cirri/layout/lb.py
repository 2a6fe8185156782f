"""Mirror of ``bpf/lib/lb.h``: Services and their backends."""

from enum import IntEnum, IntFlag
from ipaddress import IPv4Network, IPv6Network
from typing import ClassVar, Self

from cirri.layout.address import prefix16
from cirri.layout.mirror import U8, U16, U32, U64, Address16, Be16, Mirror, Pad3, Pad4, Pad6
from cirri.layout.scalar import U32_NUMBER
from cirri.layout.spec import NO_PREALLOC, MapSpec, MapType

HEADER = "lib/lb.h"


class LbScope(IntEnum):
    """``enum lb_scope``: who asks."""

    INTERNAL = 0
    """Sockets and pods of this node."""
    EXTERNAL = 1
    """What comes from the wire."""


class LbFlag(IntFlag):
    """``enum lb_flag``."""

    RANGES_ALLOW = 1
    """Only sources in ``cirri_lb_ranges`` are let in."""
    RANGES_DENY = 2
    """Sources in ``cirri_lb_ranges`` are not let in."""
    DROP_EMPTY = 4
    """Without a backend: no answer."""
    MAGLEV = 8
    """A client's address and port tell its backend, on every node the same."""
    DSR = 16
    """What goes to another node keeps its source, and is answered from there."""
    DSR_IPIP = 32
    """That travels inside IP, else with an option."""


class LbState(IntEnum):
    """``enum lb_state``: what a backend of a frontend takes."""

    TAKING = 1
    """New connections."""
    KEEPING = 2
    """Packets of those that it has."""


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
    count: U32
    affinity_s: U32 = 0
    """A client keeps its backend so long after its last connection; 0: it does not."""
    frontend: U32
    """From 1; stays the same as long as the frontend is there."""
    table: U64 = 0
    """Where a backend is chosen, if *table_size* is not 0: :class:`cirri.layout.MaglevKey`."""
    table_size: U32 = 0
    """Slots."""
    seed: U32 = 0
    """Of what a connection hashes to."""
    flags: U32 = 0
    """:class:`LbFlag`."""
    pad: U32 = 0


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
    """A backend of a frontend of the outside or with affinity."""

    c_name: ClassVar[str] = "lb_alive_key"
    header: ClassVar[str] = HEADER

    address: Address16
    frontend: U32
    """:attr:`LbService.frontend`."""
    port: Be16
    pad: U16 = 0


class LbFlowKey(Mirror, frozen=True, kw_only=True):
    """A connection that came from the wire, as its client sees it."""

    c_name: ClassVar[str] = "lb_flow_key"
    header: ClassVar[str] = HEADER

    client: Address16
    address: Address16
    client_port: Be16
    port: Be16
    protocol: U8
    pad: Pad3 = bytes(3)


class LbFlow(Mirror, frozen=True, kw_only=True):
    """Its backend."""

    c_name: ClassVar[str] = "lb_flow"
    header: ClassVar[str] = HEADER

    address: Address16
    expires: U64
    """ns of CLOCK_MONOTONIC."""
    epoch: U32
    port: Be16
    nat_port: Be16 = 0
    """Source port under which this node sends it on; :data:`DIRECT`; 0: to a pod of this node, or not yet."""


DIRECT = 1
"""``LB_DIRECT``: the source is the client's own, and the backend's node answers it."""


FRONTEND_DSR = 0xFFFF_FFFF
"""``LB_FRONTEND_DSR``: the frontend came with the connection's first packet."""


class LbFrontend(Mirror, frozen=True, kw_only=True):
    """What the client of a connection talks to."""

    c_name: ClassVar[str] = "lb_frontend"
    header: ClassVar[str] = HEADER

    address: Address16
    port: Be16
    pad: Pad6 = bytes(6)


class LbRangeKey(Mirror, frozen=True, kw_only=True):
    """Sources that a frontend tells apart."""

    c_name: ClassVar[str] = "lb_range_key"
    header: ClassVar[str] = HEADER

    prefix_len: U32
    """Of frontend and address, in bits."""
    frontend: U32
    address: Address16

    @classmethod
    def of(cls, frontend: int, network: IPv4Network | IPv6Network) -> Self:
        """The key of *network*."""
        length, address = prefix16(network)
        return cls(prefix_len=32 + length, frontend=frontend, address=address)


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


FRONTENDS, BACKENDS = 262144, 1048576
"""How many there is room for, unless the loader asks for other numbers."""
LB_SERVICES = MapSpec(
    "cirri_lb_services", HEADER, MapType.HASH, LbServiceKey, LbService, FRONTENDS, flags=NO_PREALLOC
)
LB_BACKENDS = MapSpec(
    "cirri_lb_backends", HEADER, MapType.HASH, LbBackendKey, LbBackend, BACKENDS, flags=NO_PREALLOC
)
LB_ALIVE = MapSpec(
    "cirri_lb_alive", HEADER, MapType.HASH, LbAliveKey, U32_NUMBER, BACKENDS, flags=NO_PREALLOC
)
"""Values are :class:`LbState`."""
LB_FRONTENDS = MapSpec(
    "cirri_lb_frontends", HEADER, MapType.HASH, U32_NUMBER, LbFrontend, FRONTENDS, flags=NO_PREALLOC
)
LB_RANGES = MapSpec(
    "cirri_lb_ranges", HEADER, MapType.LPM_TRIE, LbRangeKey, U32_NUMBER, FRONTENDS, flags=NO_PREALLOC
)
"""Every value is 1."""
LB_FLOWS = MapSpec("cirri_lb_flows", HEADER, MapType.LRU_HASH, LbFlowKey, LbFlow, 131072)
DSR = MapSpec("cirri_dsr", HEADER, MapType.LRU_HASH, LbFlowKey, LbFrontend, 131072)
"""The frontend that a client named to the pod that it talks to; the key's address and port are the pod's."""
LB_AFFINITY = MapSpec("cirri_lb_affinity", HEADER, MapType.LRU_HASH, LbAffinityKey, LbAffinity, 65536)
LB_REVERSE = MapSpec("cirri_lb_reverse", HEADER, MapType.LRU_HASH, LbReverseKey, LbReverse, 65536)
