"""What a node's speaker is to be: sessions, and routes with what each peer is told of them.  Pure.

A *profile* is what all peers are told of a route: for each of them that hears of it, its attributes.
Routes have few profiles; each route carries the number of its own in a large community that stays on the
node, and for each profile and peer there is one statement of policy that looks for that number.  A route
thus moves from one set of peers and attributes to another by being announced again, at once for all peers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from cirri.model.bgp import Drain

GRACEFUL_SHUTDOWN = "65535:0"
"""RFC 8326: whoever hears it prefers any other way."""
MARKER_ASN = 2**32 - 1
"""Of the large community that holds a profile's number: reserved (RFC 7300), so nobody's own begin so."""
NO_LISTENING = -1


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a peer is told with a route."""

    communities: tuple[str, ...] = ()
    """``65000:100``, sorted."""
    large: tuple[str, ...] = ()
    local_preference: int | None = None
    """Of sessions within one AS alone."""

    def __or__(self, other: Attributes) -> Attributes:
        """Of a route that several advertisements name: all communities, and the highest preference."""
        preferences = [p for p in (self.local_preference, other.local_preference) if p is not None]
        return Attributes(
            tuple(sorted({*self.communities, *other.communities})),
            tuple(sorted({*self.large, *other.large})),
            max(preferences, default=None),
        )


Profile = tuple[tuple[str, Attributes], ...]
"""(address of a peer, what it is told), sorted by address."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A session."""

    instance: str
    name: str
    address: str
    asn: int
    local_asn: int
    families: tuple[int, ...]
    """IP versions of the routes on it."""
    local_address: str = ""
    local_port: int = 0
    port: int = 179
    connect_retry_s: int = 120
    hold_s: int = 90
    keepalive_s: int = 30
    ttl: int = 0
    """Of a router further away; 0: it is on the same link."""
    restart_s: int = 0
    """How long the peer keeps routes while the speaker restarts; 0: not at all."""
    password: str = field(default="", repr=False)

    @property
    def internal(self) -> bool:
        """Whether both ends are of one AS."""
        return self.asn == self.local_asn

    @property
    def mark(self) -> str:
        """Names everything that a session has to be begun anew for; the speaker keeps it with the peer."""
        told = (self.asn, self.local_asn, self.families, self.local_address, self.local_port, self.port)
        timers = (self.connect_retry_s, self.hold_s, self.keepalive_s, self.ttl, self.restart_s)
        digest = hashlib.sha256(repr((told, timers, self.password)).encode()).hexdigest()
        return f"cirri {self.instance}/{self.name} {digest[:16]}"


@dataclass(frozen=True, slots=True)
class Speaker:
    """All of it."""

    asn: int
    router_id: str
    listen_port: int = NO_LISTENING
    listen_addresses: tuple[str, ...] = ()
    peers: tuple[Peer, ...] = ()
    waiting: tuple[Peer, ...] = ()
    """Whose password is not known: their sessions stay as they are, and so do their routes."""
    held: frozenset[str] = frozenset()
    """Addresses of all whose sessions stay as they are: also of peers of which nothing more is known."""
    routes: Mapping[str, Profile] = field(default_factory=dict)
    """By prefix."""
    next_hops: Mapping[int, str] = field(default_factory=dict)
    """By IP version: the node."""


def everyone(speaker: Speaker) -> tuple[Peer, ...]:
    """Every peer that routes are for."""
    return tuple(sorted((*speaker.peers, *speaker.waiting), key=lambda peer: peer.address))


def marker(profile: Profile) -> tuple[int, int]:
    """The number of *profile*, which every run of the service finds again."""
    digest = hashlib.sha256(repr(profile).encode()).digest()
    return int.from_bytes(digest[:4]), int.from_bytes(digest[4:8])


def marker_text(number: tuple[int, int]) -> str:
    """As a large community."""
    return f"{MARKER_ASN}:{number[0]}:{number[1]}"


def drained(profile: Profile, peers: Mapping[str, Peer], how: Drain) -> Profile:
    """*profile* while the node is drained."""
    if how == "withdraw":
        return ()
    if not how:
        return profile
    least = Attributes((GRACEFUL_SHUTDOWN,))
    return tuple(
        (
            address,
            Attributes((told | least).communities, told.large, 0 if peers[address].internal else None),
        )
        for address, told in profile
    )
