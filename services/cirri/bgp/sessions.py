"""What people are told of sessions.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cirri.bgp.encoding import AFI
from cirri.bgp.gobgp import STATES
from cirri.bgp.kernel import ESTABLISHED, SYN_SENT, Connection
from cirri.bgp.speaker import Peer, Speaker, everyone
from cirri.model.bgp import BgpCount, BgpPeer

NAMES = {AFI[4]: "ipv4", AFI[6]: "ipv6"}


class Wire(NamedTuple):
    """What the kernel says of connections, and how many segments it dropped for their password."""

    connections: Sequence[Connection] = ()
    wrong_passwords: int = 0


def sessions(speaker: Speaker, seen: Iterable[Any], wire: Wire, now: datetime) -> tuple[BgpPeer, ...]:
    """Every session that is wanted, and those that are kept as they are."""
    known = {each.conf.neighbor_address: each for each in seen}
    return tuple(_session(peer, known.get(peer.address), wire, now) for peer in everyone(speaker))


def _session(peer: Peer, seen: Any, wire: Wire, now: datetime) -> BgpPeer:
    told: dict[str, Any] = {
        "instance": peer.instance,
        "name": peer.name,
        "local_asn": peer.local_asn,
        "peer_asn": peer.asn,
        "address": peer.address,
    }
    if seen is None:
        return BgpPeer(**told, state="missing", problem="the speaker does not know of it yet")
    state = STATES[seen.state.session_state]
    up = state == "established"
    since = datetime.fromtimestamp(seen.timers.state.uptime.seconds, UTC) if up else now
    counts = tuple(
        BgpCount(afi=NAMES[a.config.family.afi], received=a.state.received, advertised=a.state.advertised)
        for a in seen.afi_safis
        if a.config.family.afi in NAMES
    )
    return BgpPeer(
        **told,
        state=state,
        uptime_s=max(0, int((now - since).total_seconds())),
        since=since.strftime("%Y-%m-%dT%H:%M:%SZ") if up else "",
        hold_s=int(seen.timers.state.negotiated_hold_time) if up else 0,
        keepalive_s=int(seen.timers.state.keepalive_interval) if up else 0,
        families=counts,
        problem="" if up else problem(peer, wire),
    )


def problem(peer: Peer, wire: Wire) -> str:
    """Why a session is not established, as far as the kernel knows.

    A router that has another password for this node drops what it says: it looks as if nobody were there.
    """
    where = f"TCP port {peer.port} of {peer.address}"
    mine = [c for c in wire.connections if (c.address, c.port) == (peer.address, peer.port)]
    if peer.password and wire.wrong_passwords:
        return f"{where}: {wire.wrong_passwords} segments came with another password, or without one"
    if any(c.state == SYN_SENT for c in mine):
        hint = ": wrong password, or nobody there" if peer.password else ""
        return f"{where} does not answer{hint}"
    if any(c.state == ESTABLISHED for c in mine):
        return f"connected to {where}; do AS numbers and families agree?"
    return f"no connection to {where} yet"


def silent(connections: Iterable[Connection], address: str) -> bool:
    """Whether the other end has acknowledged everything that was sent to it."""
    return all(not c.unacknowledged for c in connections if c.address == address and c.state == ESTABLISHED)


def sent(seen: Iterable[Any]) -> Mapping[str, int]:
    """Updates sent to each peer."""
    return {each.conf.neighbor_address: int(each.state.messages.sent.update) for each in seen}
