"""Mirror of ``bpf/lib/conntrack.h``: connections seen by a node, and the verdict given to each."""

import sys
from enum import IntFlag
from typing import ClassVar, Self

from cirri.layout.address import Address, address16
from cirri.layout.mirror import U8, U16, U32, U64, Address16, Be16, Mirror
from cirri.layout.spec import MapSpec, MapType

HEADER = "lib/conntrack.h"
UNTOLD_BITS = 40
"""Of bytes, below those of packets."""
TICK_BITS = 20
"""Nanoseconds of a tick, as a power of two."""


class CtFlag(IntFlag):
    """``enum ct_flag``."""

    FROM_HIGH = 1
    SEEN_REPLY = 2
    FIN_FORWARD = 4
    FIN_REPLY = 8
    RESET = 16
    ESTABLISHED = 32
    AUDITED_INGRESS = 64
    AUDITED_EGRESS = 128
    MASQUERADED = 256
    REDIRECTED = 512
    """It ends in a proxy of this node."""
    UPSTREAM = 1024
    """An ingress proxy goes on to its pod: nobody's policy is asked again."""


class CtKey(Mirror, frozen=True, kw_only=True):
    """A connection: its two ends in numeric order."""

    c_name: ClassVar[str] = "ct_key"
    header: ClassVar[str] = HEADER

    low: Address16
    high: Address16
    low_port: Be16 = 0
    high_port: Be16 = 0
    protocol: U8 = 0
    leg: U8 = 0
    """1: of a proxy to the server, which may use the client's very port."""
    pad: U16 = 0

    @classmethod
    def of(
        cls,
        source: str | bytes | Address,
        source_port: int,
        destination: str | bytes | Address,
        destination_port: int,
        protocol: int,
        *,
        leg: int = 0,
    ) -> Self:
        """The key of the connection between two ends, in whichever order they are given.

        Ports of ICMP: the end that asks has the identifier, the other one the type asked.
        """
        ends = sorted(
            ((address16(source), source_port), (address16(destination), destination_port)), key=_as_cpu
        )
        (low, low_port), (high, high_port) = ends
        return cls(low=low, high=high, low_port=low_port, high_port=high_port, protocol=protocol, leg=leg)

    def ends(self, flags: int) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
        """((address, port) that opened the connection, the other end), by the *flags* of its value."""
        low, high = (self.low, self.low_port), (self.high, self.high_port)
        return (high, low) if flags & CtFlag.FROM_HIGH else (low, high)


def _as_cpu(end: tuple[bytes, int]) -> tuple[int, int, int]:
    """Sort key of (address, port): as the CPU compares the fields of ``union address`` and ``__be16``."""
    address, port = end
    order = sys.byteorder
    return (
        int.from_bytes(address[:8], order),
        int.from_bytes(address[8:], order),
        int.from_bytes(port.to_bytes(2, "big"), order),
    )


class CtValue(Mirror, frozen=True, kw_only=True):
    """What is known of a connection."""

    c_name: ClassVar[str] = "ct_value"
    header: ClassVar[str] = HEADER

    expires: U64 = 0
    """ns of CLOCK_MONOTONIC."""
    forward_untold: U64 = 0
    """Counted since the last event of this direction: packets in the upper 24 bits, bytes in the lower 40."""
    reply_untold: U64 = 0
    epoch: U32 = 0
    flags: U32 = 0
    """:class:`CtFlag`."""
    frontend: U32 = 0
    """:attr:`LbService.frontend` under which the end that opened it knows the other; 0: none."""
    forward_told: U32 = 0
    """When that event was, in ticks of 2^20 ns of CLOCK_MONOTONIC, the lower 32 bits."""
    reply_told: U32 = 0
    forward_seen: U8 = 0
    """TCP flags of packets with such events."""
    reply_seen: U8 = 0
    pad: U16 = 0
    forward_packets: U64 = 0
    """That events told; see :meth:`forward` for all there were."""
    forward_bytes: U64 = 0
    reply_packets: U64 = 0
    reply_bytes: U64 = 0
    source_identity: U32 = 0
    destination_identity: U32 = 0
    egress_rule: U32 = 0
    ingress_rule: U32 = 0

    @property
    def forward(self) -> tuple[int, int]:
        """(packets, bytes) that the end sent that opened the connection."""
        return _with(self.forward_packets, self.forward_bytes, self.forward_untold)

    @property
    def reply(self) -> tuple[int, int]:
        """(packets, bytes) that the other end sent."""
        return _with(self.reply_packets, self.reply_bytes, self.reply_untold)


def _with(packets: int, octets: int, untold: int) -> tuple[int, int]:
    return packets + (untold >> UNTOLD_BITS), octets + (untold & (1 << UNTOLD_BITS) - 1)


CT = MapSpec("cirri_ct", HEADER, MapType.LRU_HASH, CtKey, CtValue, 131072)
