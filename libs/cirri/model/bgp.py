"""What the ``bgp`` service of a node is asked, and says: ``cirri.bgp.NODE.*``, as MessagePack."""

from typing import Literal

from msgspec import Struct

Drain = Literal["", "withdraw", "graceful-shutdown"]
"""How a node is drained: nothing announced any more, or everything with community GRACEFUL_SHUTDOWN
(RFC 8326), so that routers move traffic before the way goes; empty: it is not."""


class BgpCount(Struct, frozen=True, kw_only=True):
    """Routes of one family on a session."""

    afi: str
    """``ipv4``, ``ipv6``."""
    safi: str = "unicast"
    received: int = 0
    advertised: int = 0


class BgpPeer(Struct, frozen=True, kw_only=True):
    """A session, as the speaker says."""

    instance: str
    name: str
    local_asn: int
    peer_asn: int
    address: str
    state: str
    """``idle``, ``connect``, ``active``, ``open_sent``, ``open_confirm``, ``established``; ``missing``: the
    speaker was not told of it."""
    uptime_s: int = 0
    since: str = ""
    """RFC 3339, UTC: when it was established."""
    hold_s: int = 0
    keepalive_s: int = 0
    """As negotiated."""
    families: tuple[BgpCount, ...] = ()
    problem: str = ""
    """Why it is not established, as far as can be seen from here."""


class BgpPeersReply(Struct, frozen=True, kw_only=True):
    """The answer to ``peers``."""

    peers: tuple[BgpPeer, ...] = ()
    drain: Drain = ""
    error: str = ""
    """Why the speaker is not what it is to be; empty: it is."""


class BgpRoutesRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``routes``: what the speaker knows, or what it tells its peers."""

    family: str
    """``ipv4``, ``ipv6``."""
    advertised: bool = False
    peer: str = ""
    """Address of the one peer asked about."""
    limit: int = 5000


class BgpRoute(Struct, frozen=True, kw_only=True):
    """A route."""

    router: int
    """The AS it is announced from."""
    peer: str = ""
    """Whom it is told to; of routes that are known, whom it came from: empty if it is the node's own."""
    prefix: str
    next_hop: str
    age_s: int = 0
    attributes: tuple[str, ...] = ()


class BgpRoutesReply(Struct, frozen=True, kw_only=True):
    """The answer."""

    routes: tuple[BgpRoute, ...] = ()
    more: bool = False
    """Whether there are others beyond the limit."""
    error: str = ""


class BgpPolicy(Struct, frozen=True, kw_only=True):
    """Which routes a peer is told, and with which attributes."""

    router: int
    name: str
    peer: str
    prefixes: int
    """How many it is about."""
    example: str
    """One of them."""
    communities: tuple[str, ...] = ()
    large_communities: tuple[str, ...] = ()
    local_preference: int | None = None


class BgpPoliciesReply(Struct, frozen=True, kw_only=True):
    """The answer to ``route-policies``."""

    policies: tuple[BgpPolicy, ...] = ()


class BgpDrainRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``drain``: drain the node, or (empty) announce everything again; it stays over restarts."""

    how: Drain
    within_s: float = 10.0
    """How long confirmation may take."""


class BgpDrained(Struct, frozen=True, kw_only=True):
    """What became of one session."""

    address: str
    state: str
    advertised: int
    confirmed: bool
    """Everything the node had to say to this peer has arrived there (its TCP has acknowledged it)."""


class BgpDrainReply(Struct, frozen=True, kw_only=True):
    """The answer, when it is confirmed or the time is over."""

    peers: tuple[BgpDrained, ...] = ()
    error: str = ""
