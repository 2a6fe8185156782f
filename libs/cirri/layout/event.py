"""Mirror of ``bpf/lib/event.h``: what happened to connections, for observers."""

from enum import IntEnum
from typing import ClassVar

from cirri.layout.mirror import NO_ADDRESS, U8, U16, U32, U64, Address16, Be16, Mirror
from cirri.layout.scalar import U32_NUMBER, U64_NUMBER, Raw
from cirri.layout.spec import MapSpec, MapType

HEADER = "lib/event.h"

EVENT_COUNTERS = 4


class EventType(IntEnum):
    """``enum event_type``."""

    POLICY_VERDICT = 1
    CONNECTION_CLOSED = 3
    """It was closed; or, with :attr:`EventRecord.length` 0, what was left to tell of one that is over."""
    DROP = 4
    TRACE = 5
    """A packet was forwarded; it stands for others of its connection and direction."""


class TracePoint(IntEnum):
    """``enum trace_point``: numbers of Hubble's ``flow.TraceObservationPoint``."""

    UNKNOWN = 0
    TO_PROXY = 1
    TO_HOST = 2
    TO_STACK = 3
    TO_OVERLAY = 4
    FROM_ENDPOINT = 5
    FROM_PROXY = 6
    FROM_HOST = 7
    FROM_STACK = 8
    FROM_OVERLAY = 9
    FROM_NETWORK = 10
    TO_NETWORK = 11
    TO_ENDPOINT = 101


class TraceState(IntEnum):
    """``enum trace_state``: numbers of Hubble's ``flow.TraceReason``."""

    UNKNOWN = 0
    NEW = 1
    ESTABLISHED = 2
    REPLY = 3
    RELATED = 4


class EventCounter(IntEnum):
    """``enum event_counter``: indexes of ``cirri_event_counters``."""

    SUBMITTED = 0
    LOST = 1
    """For which there was no room."""
    FORGONE_PACKETS = 2
    """That no event will stand for any more, for the same reason."""
    FORGONE_BYTES = 3


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
    """Of the packet, bytes; 0: there was none, see :attr:`packets`."""
    endpoint: U16 = 0
    """The local one whose policy was asked, or that the packet left or reached."""
    tcp_flags: U8 = 0
    match: U8 = 0
    """:class:`cirri.layout.PolicyMatch`."""
    audited: U8 = 0
    """1: it passed all the same; :attr:`reason` is why it would not have."""
    point: U8 = 0
    """TRACE: :class:`TracePoint`."""
    proxy_port: U16 = 0
    """POLICY_VERDICT: the port of the node that the connection is redirected to; 0: none."""
    ifindex: U32 = 0
    """Of the device at which it was met."""
    state: U8 = 0
    """TRACE: :class:`TraceState`."""
    reply: U8 = 0
    """TRACE, CONNECTION_CLOSED: 1: it travels as the connection was opened; 2: against that; 0: not known."""
    pad: U16 = 0
    packets: U64 = 0
    """From source to destination, that the event stands for: of DROP 1, of POLICY_VERDICT none."""
    bytes: U64 = 0


EVENTS = MapSpec("cirri_events", HEADER, MapType.RINGBUF, Raw("void", 0), Raw("void", 0), 1 << 22)
EVENT_COUNTER = MapSpec(
    "cirri_event_counters", HEADER, MapType.PERCPU_ARRAY, U32_NUMBER, U64_NUMBER, EVENT_COUNTERS
)
