"""Mirrors of the structs, enums and maps in ``bpf/lib``, proved against the C by ``tests/layout``.

One module per header.  C is the contract: change the header, and the test names what is stale here.
"""

from enum import IntEnum, IntFlag
from typing import Any, NamedTuple

from cirri.layout.address import address16, address_of, address_text, network_of, prefix16
from cirri.layout.conntrack import CT, TICK_BITS, UNTOLD_BITS, CtFlag, CtKey, CtValue
from cirri.layout.drop import DropReason, drop_text
from cirri.layout.endpoint import (
    ENDPOINT_MEMOS,
    ENDPOINTS,
    EndpointFlag,
    EndpointMemo,
    EndpointValue,
)
from cirri.layout.event import (
    EVENT_COUNTER,
    EVENT_COUNTERS,
    EVENTS,
    EventCounter,
    EventRecord,
    EventType,
    TracePoint,
    TraceState,
)
from cirri.layout.fragment import FRAGMENTS, FragmentKey, FragmentValue
from cirri.layout.ipcache import HOPS, IPCACHE, Hop, IpcacheKey, IpcacheValue, ReservedIdentity
from cirri.layout.lb import (
    DIRECT,
    DSR,
    FRONTEND_DSR,
    LB_AFFINITY,
    LB_ALIVE,
    LB_BACKENDS,
    LB_FLOWS,
    LB_FRONTENDS,
    LB_RANGES,
    LB_REVERSE,
    LB_SERVICES,
    LbAffinity,
    LbAffinityKey,
    LbAliveKey,
    LbBackend,
    LbBackendKey,
    LbFlag,
    LbFlow,
    LbFlowKey,
    LbFrontend,
    LbRangeKey,
    LbReverse,
    LbReverseKey,
    LbScope,
    LbService,
    LbServiceKey,
    LbState,
)
from cirri.layout.maglev import LB_MAGLEV, MAGLEV_PART, MaglevKey, MaglevPart, maglev_keys, maglev_parts
from cirri.layout.mark import MARK_MASK, Mark
from cirri.layout.masquerade import MASQUERADE_NOT
from cirri.layout.metrics import METRICS, MetricsValue, metrics_index, metrics_of
from cirri.layout.mirror import Codec, Mirror
from cirri.layout.names import NAMES, NameKey
from cirri.layout.nat import NAT, NAT_PORT_FIRST, NatDirection, NatKey, NatValue
from cirri.layout.nexthop import NEXTHOPS, Nexthop
from cirri.layout.policy import (
    POLICY,
    POLICY_MEMOS,
    POLICY_PREFIX_PEER,
    POLICY_PREFIX_PORT,
    POLICY_PREFIX_PROTOCOL,
    PolicyAction,
    PolicyDirection,
    PolicyKey,
    PolicyMatch,
    PolicyMemo,
    PolicySide,
    PolicyValue,
)
from cirri.layout.runtime import RUNTIME, RuntimeConfig, RuntimeFlag
from cirri.layout.scalar import ADDRESS, U32_NUMBER, U64_NUMBER
from cirri.layout.spec import MapSpec, MapType
from cirri.layout.way import WAYS, Way

# Explicit, since __subclasses__() would hide what was forgotten.
MIRRORS: tuple[type[Mirror], ...] = (
    CtKey,
    CtValue,
    EndpointValue,
    EndpointMemo,
    EventRecord,
    FragmentKey,
    FragmentValue,
    IpcacheKey,
    IpcacheValue,
    Hop,
    LbServiceKey,
    LbService,
    LbBackendKey,
    LbBackend,
    LbAliveKey,
    LbAffinityKey,
    LbAffinity,
    LbFlowKey,
    LbFlow,
    LbFrontend,
    LbRangeKey,
    LbReverseKey,
    LbReverse,
    MaglevKey,
    MaglevPart,
    MetricsValue,
    NameKey,
    Nexthop,
    NatKey,
    NatValue,
    PolicyKey,
    PolicyMemo,
    PolicyValue,
    RuntimeConfig,
    Way,
)

MAPS: dict[str, MapSpec[Any, Any]] = {
    spec.name: spec
    for spec in (
        CT,
        DSR,
        ENDPOINTS,
        ENDPOINT_MEMOS,
        EVENTS,
        EVENT_COUNTER,
        FRAGMENTS,
        HOPS,
        IPCACHE,
        LB_SERVICES,
        LB_BACKENDS,
        LB_ALIVE,
        LB_AFFINITY,
        LB_FRONTENDS,
        LB_RANGES,
        LB_FLOWS,
        LB_REVERSE,
        LB_MAGLEV,
        MASQUERADE_NOT,
        METRICS,
        NAMES,
        NAT,
        NEXTHOPS,
        POLICY,
        POLICY_MEMOS,
        RUNTIME,
        WAYS,
    )
}
"""Every pinned map, by name."""


class EnumMirror(NamedTuple):
    """A C enum and its Python members; C name = *prefix* + Python name."""

    c_name: str
    header: str
    prefix: str
    members: type[IntEnum] | type[IntFlag]


ENUMS: tuple[EnumMirror, ...] = (
    EnumMirror("ct_flag", "lib/conntrack.h", "CT_", CtFlag),
    EnumMirror("endpoint_flag", "lib/endpoint.h", "ENDPOINT_", EndpointFlag),
    EnumMirror("event_type", "lib/event.h", "EVENT_", EventType),
    EnumMirror("event_counter", "lib/event.h", "EVENTS_", EventCounter),
    EnumMirror("trace_point", "lib/event.h", "TRACE_", TracePoint),
    EnumMirror("trace_state", "lib/event.h", "STATE_", TraceState),
    EnumMirror("reserved_identity", "lib/ipcache.h", "IDENTITY_", ReservedIdentity),
    EnumMirror("lb_flag", "lib/lb.h", "LB_", LbFlag),
    EnumMirror("lb_state", "lib/lb.h", "LB_", LbState),
    EnumMirror("lb_scope", "lib/lb.h", "LB_", LbScope),
    EnumMirror("mark", "lib/mark.h", "MARK_", Mark),
    EnumMirror("nat_direction", "lib/natmap.h", "NAT_", NatDirection),
    EnumMirror("policy_action", "lib/policy.h", "ACTION_", PolicyAction),
    EnumMirror("policy_direction", "lib/policy.h", "POLICY_", PolicyDirection),
    EnumMirror("policy_match", "lib/policy.h", "MATCH_", PolicyMatch),
    EnumMirror("policy_side", "lib/policy.h", "SIDE_", PolicySide),
    EnumMirror("runtime_flag", "lib/runtime.h", "RUNTIME_", RuntimeFlag),
)
"""``enum drop_reason`` is proved by :func:`cirri.layout.drop.drop_asserts`, with its texts."""

CONSTANTS: tuple[tuple[str, str, int], ...] = (
    ("lib/conntrack.h", "CT_ONE", 1 << UNTOLD_BITS),
    ("lib/conntrack.h", "CT_TICK_SHIFT", TICK_BITS),
    ("lib/event.h", "EVENT_COUNTERS", EVENT_COUNTERS),
    ("lib/maglev.h", "MAGLEV_PART", MAGLEV_PART),
    ("lib/mark.h", "MARK_MASK", MARK_MASK),
    ("lib/metrics.h", "METRICS_INDEX(133, 2)", metrics_index(133, 2)),
    ("lib/natmap.h", "NAT_PORT_FIRST", NAT_PORT_FIRST),
    ("lib/policy.h", "POLICY_PREFIX_PEER", POLICY_PREFIX_PEER),
    ("lib/policy.h", "POLICY_PREFIX_PROTOCOL", POLICY_PREFIX_PROTOCOL),
    ("lib/policy.h", "POLICY_PREFIX_PORT", POLICY_PREFIX_PORT),
)
"""(header, C expression, value)."""

__all__ = [
    "ADDRESS",
    "CONSTANTS",
    "CT",
    "DIRECT",
    "DSR",
    "ENDPOINTS",
    "ENDPOINT_MEMOS",
    "ENUMS",
    "EVENTS",
    "EVENT_COUNTER",
    "EVENT_COUNTERS",
    "FRAGMENTS",
    "FRONTEND_DSR",
    "HOPS",
    "IPCACHE",
    "LB_AFFINITY",
    "LB_ALIVE",
    "LB_BACKENDS",
    "LB_FLOWS",
    "LB_FRONTENDS",
    "LB_MAGLEV",
    "LB_RANGES",
    "LB_REVERSE",
    "LB_SERVICES",
    "MAGLEV_PART",
    "MAPS",
    "MARK_MASK",
    "MASQUERADE_NOT",
    "METRICS",
    "MIRRORS",
    "NAMES",
    "NAT",
    "NAT_PORT_FIRST",
    "NEXTHOPS",
    "POLICY",
    "POLICY_MEMOS",
    "POLICY_PREFIX_PEER",
    "POLICY_PREFIX_PORT",
    "POLICY_PREFIX_PROTOCOL",
    "RUNTIME",
    "U32_NUMBER",
    "U64_NUMBER",
    "WAYS",
    "Codec",
    "CtFlag",
    "CtKey",
    "CtValue",
    "DropReason",
    "EndpointFlag",
    "EndpointMemo",
    "EndpointValue",
    "EnumMirror",
    "EventCounter",
    "EventRecord",
    "EventType",
    "FragmentKey",
    "FragmentValue",
    "Hop",
    "IpcacheKey",
    "IpcacheValue",
    "LbAffinity",
    "LbAffinityKey",
    "LbAliveKey",
    "LbBackend",
    "LbBackendKey",
    "LbFlag",
    "LbFlow",
    "LbFlowKey",
    "LbFrontend",
    "LbRangeKey",
    "LbReverse",
    "LbReverseKey",
    "LbScope",
    "LbService",
    "LbServiceKey",
    "LbState",
    "MaglevKey",
    "MaglevPart",
    "MapSpec",
    "MapType",
    "Mark",
    "MetricsValue",
    "Mirror",
    "NameKey",
    "NatDirection",
    "NatKey",
    "NatValue",
    "Nexthop",
    "PolicyAction",
    "PolicyDirection",
    "PolicyKey",
    "PolicyMatch",
    "PolicyMemo",
    "PolicySide",
    "PolicyValue",
    "ReservedIdentity",
    "RuntimeConfig",
    "RuntimeFlag",
    "TracePoint",
    "TraceState",
    "Way",
    "address16",
    "address_of",
    "address_text",
    "drop_text",
    "maglev_keys",
    "maglev_parts",
    "metrics_index",
    "metrics_of",
    "network_of",
    "prefix16",
]
