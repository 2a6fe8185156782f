"""Mirror of ``bpf/lib/policy.h``: which peers a set of endpoints may talk to."""

from enum import IntEnum
from typing import ClassVar, Self

from cirri.layout.mirror import U8, U16, U32, U64, Be16, Mirror
from cirri.layout.scalar import U32_NUMBER
from cirri.layout.spec import NO_PREALLOC, MapSpec, MapType

HEADER = "lib/policy.h"

POLICY_PREFIX_PEER = 72
POLICY_PREFIX_PROTOCOL = 80
POLICY_PREFIX_PORT = 96


class PolicyDirection(IntEnum):
    """``enum policy_direction``."""

    INGRESS = 1
    EGRESS = 2


class PolicyAction(IntEnum):
    """``enum policy_action``."""

    ALLOW = 0
    DENY = 1
    AUTH = 2
    """Allowed once both ends have proved who they are."""


class PolicyMatch(IntEnum):
    """``enum policy_match``: what a verdict rested on; texts are Cilium's."""

    text: str

    def __new__(cls, number: int, text: str = "") -> "PolicyMatch":
        """A kind of match with the text shown to people."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.text = text
        return member

    NONE = 0, "none"
    IDENTITY = 1, "L3-Only"
    IDENTITY_PORT = 2, "L3-L4"
    PORT = 3, "L4-Only"
    ALL = 4, "all"
    IDENTITY_PROTOCOL = 5, "L3-Proto"
    PROTOCOL = 6, "Proto-Only"


class PolicyKey(Mirror, frozen=True, kw_only=True):
    """Longest match over policy_id, identity, direction, protocol, port, in this order."""

    c_name: ClassVar[str] = "policy_key"
    header: ClassVar[str] = HEADER

    prefix_len: U32
    policy_id: U32
    identity: U32
    """Of the peer; 0: any peer."""
    direction: U8
    protocol: U8 = 0
    port: Be16 = 0
    """First port of the block; bits beyond *prefix_len* are 0."""

    @classmethod
    def of(  # noqa: PLR0917 - the fields of the key, in its order
        cls,
        policy_id: int,
        identity: int,
        direction: int,
        protocol: int = 0,
        port: int = 0,
        port_bits: int = 0,
    ) -> Self:
        """The key of an entry for a block of ports.

        Args:
            policy_id: set of entries, as in :attr:`EndpointValue.policy_id`.
            identity: of the peer, 0 for any.
            direction: :class:`PolicyDirection`.
            protocol: IANA number; 0: every protocol, and then no port either.
            port: destination port, or ICMP type in the low byte.
            port_bits: how many leading bits of *port* count: 16 for one port, 0 for all.

        Raises:
            ValueError: ports of no protocol, or bits of *port* beyond *port_bits*.
        """
        if port & ((1 << (16 - port_bits)) - 1) or (not protocol and port_bits):
            raise ValueError(f"no block of ports: {protocol}/{port} with {port_bits} bits")
        bits = POLICY_PREFIX_PROTOCOL + port_bits if protocol else POLICY_PREFIX_PEER
        return cls(
            prefix_len=bits,
            policy_id=policy_id,
            identity=identity,
            direction=direction,
            protocol=protocol,
            port=port,
        )

    @property
    def port_bits(self) -> int:
        """How many leading bits of :attr:`port` count."""
        return max(0, self.prefix_len - POLICY_PREFIX_PROTOCOL)

    @property
    def ports(self) -> tuple[int, int]:
        """First and last port that the entry holds for."""
        return self.port, self.port | ((1 << (16 - self.port_bits)) - 1)


class PolicyValue(Mirror, frozen=True, kw_only=True):
    """What happens to the peer, and how often it did."""

    c_name: ClassVar[str] = "policy_value"
    header: ClassVar[str] = HEADER

    rule: U32 = 0
    """Cookie of the rule that wrote the entry."""
    proxy_port: U16 = 0
    action: U8 = 0
    """:class:`PolicyAction`."""
    priority: U8 = 0
    packets: U64 = 0
    bytes: U64 = 0


POLICY = MapSpec("cirri_policy", HEADER, MapType.LPM_TRIE, PolicyKey, PolicyValue, 1048576, flags=NO_PREALLOC)


class PolicySide(IntEnum):
    """``enum policy_side``."""

    NONE = 0
    PEER = 1
    ANY = 2


class PolicyMemo(Mirror, frozen=True, kw_only=True):
    """How programs found an answer lately; theirs alone."""

    c_name: ClassVar[str] = "policy_memo"
    header: ClassVar[str] = HEADER

    policy_id: U32 = 0
    identity: U32 = 0
    direction: U8 = 0
    protocol: U8 = 0
    port: Be16 = 0
    epoch: U32 = 0
    decides: U8 = 0
    """:class:`PolicySide`."""
    match: U8 = 0
    """:class:`PolicyMatch`."""
    pad: U16 = 0


POLICY_MEMOS = MapSpec("cirri_policy_memos", HEADER, MapType.PERCPU_ARRAY, U32_NUMBER, PolicyMemo, 1024)
