"""Numbers of identities: the reserved ones, the ranges, and the order in which a label set tries them.

Ranges (32 bits): 1..255 reserved; 256..65535 the first choices of every label set, so that
numbers stay short and as other tools expect them; 0x01000000..0x01FFFFFF addresses outside the
cluster; 0x02000000..0x02FFFFFF nodes; 0x03000000..0x03FFFFFF sets of names;
0x10000000..0xFFFFFFFF for a set whose first choices are all taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from cirri.errors import CirriError
from cirri.labels.label import canonical


class Reserved(IntEnum):
    """Fixed classes of peers; they need no store to be known."""

    UNKNOWN = 0
    HOST = 1
    WORLD = 2
    UNMANAGED = 3
    HEALTH = 4
    INIT = 5
    REMOTE_NODE = 6
    KUBE_APISERVER = 7
    INGRESS = 8
    WORLD_IPV4 = 9
    WORLD_IPV6 = 10

    @property
    def label(self) -> str:
        """Its label, e.g. ``reserved:remote-node``."""
        return f"reserved:{self.name.lower().replace('_', '-')}"


RESERVED_LABELS: dict[int, frozenset[str]] = {
    number: frozenset((number.label, Reserved.REMOTE_NODE.label))
    if number is Reserved.KUBE_APISERVER
    else frozenset((number.label,))
    for number in Reserved
    if number is not Reserved.UNKNOWN
}
"""Labels of every reserved identity that a peer can have."""

_NUMBERS = {labels: number for number, labels in RESERVED_LABELS.items()}


def reserved_number(labels: Iterable[str]) -> int:
    """Number of the reserved identity with exactly *labels*; 0 if there is none."""
    return _NUMBERS.get(frozenset(labels), 0)


class IdentitiesExhausted(CirriError):
    """Every number that a label set may take belongs to another set."""

    hint = "Narrow the label filter (ConfigMap cirri-config, key `labels`) so that fewer label sets count"

    def __init__(self, labels: Iterable[str], tried: int) -> None:
        self.labels = tuple(labels)
        self.tried = tried
        super().__init__(f"no identity for {','.join(self.labels)}: its {tried} numbers are all taken")


@dataclass(frozen=True, slots=True)
class Space:
    """The numbers that label sets share."""

    low: range = range(256, 65536)
    high: range = range(0x1000_0000, 0x1_0000_0000)
    low_probes: int = 8
    """With n sets alive a set misses all of these with probability (n/65280)**8."""
    probes: int = 64


SPACE = Space()
WORLD_SPACE = Space(range(0x0100_0001, 0x0180_0000), range(0x0180_0000, 0x0200_0000))
"""Of addresses outside the cluster that policies tell apart."""
NODE_SPACE = Space(range(0x0200_0001, 0x0280_0000), range(0x0280_0000, 0x0300_0000))
"""Of nodes that have labels of their own."""

NAMES_SPACE = range(0x0300_0001, 0x0400_0000)
"""Of sets of names (FQDN selectors), which each node numbers for itself: peers in its policy alone."""

_NODES = {Reserved.HOST.label, Reserved.REMOTE_NODE.label}
_WORLD = {Reserved.WORLD.label, Reserved.WORLD_IPV4.label, Reserved.WORLD_IPV6.label}


def space_of(labels: Iterable[str]) -> Space:
    """The numbers that an identity with *labels* may have."""
    known = set(labels)
    if known & _NODES:
        return NODE_SPACE
    return WORLD_SPACE if known & _WORLD else SPACE


def in_space(number: int, space: Space) -> bool:
    """Whether *number* is one of *space*.  (``in`` walks a range for a member of :class:`Reserved`.)"""
    return any(span.start <= number < span.stop for span in (space.low, space.high))


def is_located(number: int) -> bool:
    """Whether *number* is one of an address prefix or a node, not of endpoints."""
    return in_space(number, WORLD_SPACE) or in_space(number, NODE_SPACE)


def probes(labels: Iterable[str], space: Space | None = None) -> Iterator[int]:
    """The numbers that a label set tries, in order: the same for everyone who asks.

    *space*: by default the one that its labels say.

    An allocator takes the first one that no other set has, so two allocators that race meet at
    the same number, and a wiped store gives most sets their old numbers again.
    """
    known = canonical(labels)
    space = space or space_of(known)
    text = "\n".join(known).encode()
    seen: set[int] = set()
    for count in range(space.probes):
        digest = hashlib.sha256(count.to_bytes(4, "big") + text).digest()
        numbers = space.low if count < space.low_probes else space.high
        number = numbers[int.from_bytes(digest[:8], "big") % len(numbers)]
        if number not in seen:
            seen.add(number)
            yield number
