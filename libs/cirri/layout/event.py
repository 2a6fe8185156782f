"""Mirror of ``bpf/lib/event.h``: what happened to connections, for observers."""

from enum import IntEnum
from typing import ClassVar

from cirri.layout.mirror import NO_ADDRESS, U8, U16, U32, U64, Address16, Be16, Mirror
from cirri.layout.scalar import U32_NUMBER, U64_NUMBER, Raw
from cirri.layout.spec import MapSpec, MapType

HEADER = "lib/event.h"

EVENT_COUNTERS = 2


class EventType(IntEnum):
    """``enum event_type``."""

    POLICY_VERDICT = 1
    CONNECTION_NEW = 2
    CONNECTION_CLOSED = 3
    DROP = 4


class EventCounter(IntEnum):
    """``enum event_counter``: indexes of ``cirri_event_counters``."""

    SUBMITTED = 0
    LOST = 1


class EventRecord(Mirror, frozen=True, kw_only=True):
    """One record of the ring buffer."""

    c_name: ClassVar[str] = "event"
    header: ClassVar[str] = HEADER

    timestamp: U64 = 0
    """ns of CLOCK_MONOTONIC."""
    source: Address16 = NO_ADDRESS
    destination: Address16 = NO_ADDRESS
    source_identity: U32 = 0
    destination_identity: U32 = 0
    source_port: Be16 = 0
    destination_port: Be16 = 0
    type: U8 = 0
    """:class:`EventType`."""
    protocol: U8 = 0
    direction: U8 = 0
    """:class:`cirri.layout.PolicyDirection`, or 0."""
    reason: U8 = 0
    """:class:`cirri.layout.DropReason`, or 0: forwarded or allowed."""
    rule: U32 = 0
    length: U32 = 0
    endpoint: U16 = 0
    tcp_flags: U8 = 0
    match: U8 = 0
    """:class:`cirri.layout.PolicyMatch`."""
    audited: U8 = 0
    """1: it passed all the same; :attr:`reason` is why it would not have."""
    pad: U8 = 0
    proxy_port: U16 = 0
    """POLICY_VERDICT: the port of the node that the connection is redirected to; 0: none."""
    packets: U64 = 0
    bytes: U64 = 0


EVENTS = MapSpec("cirri_events", HEADER, MapType.RINGBUF, Raw("void", 0), Raw("void", 0), 1 << 20)
EVENT_COUNTER = MapSpec(
    "cirri_event_counters", HEADER, MapType.PERCPU_ARRAY, U32_NUMBER, U64_NUMBER, EVENT_COUNTERS
)
