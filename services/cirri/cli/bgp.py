"""``cirri bgp``: sessions with routers, the routes on them, and draining a node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from cirri.cli.bus import each_node, with_bus
from cirri.cli.context import Target
from cirri.cli.output import emit, output, table
from cirri.errors import CirriError
from cirri.model.bgp import (
    BgpDrainReply,
    BgpDrainRequest,
    BgpPeersReply,
    BgpPoliciesReply,
    BgpRoutesReply,
    BgpRoutesRequest,
    Drain,
)
from cirri.model.bucket import token

if TYPE_CHECKING:
    from cirri.kv import Bus

T = TypeVar("T")
REQUEST_S = 15.0
PEERS = (
    *("Node", "Local AS", "Peer AS", "Peer Address", "Session State"),
    *("Uptime", "Family", "Received", "Advertised"),
)
"""Columns as the field has them."""
_node = click.option("--node", "-n", metavar="NODE", help="Only this node's.")


class NotConfirmed(CirriError):
    """A drain whose end is not certain."""

    hint = "It goes on; `cirri bgp peers` shows the sessions, `cirri bgp undrain` takes it back"

    def __init__(self, node: str, why: str) -> None:
        super().__init__(f"node {node}: {why}")


@click.group()
def bgp() -> None:
    """Show sessions with routers and the routes on them; drain a node."""


@bgp.command()
@_node
@output
@click.pass_obj
def peers(target: Target, *, node: str | None, form: str | None) -> None:
    """List the sessions of each node, and why those that are not established are not."""
    found = _asked(target, node, "peers", b"", BgpPeersReply)
    if form:
        emit([{"node": at, **msgspec.to_builtins(reply)} for at, reply in found], form)
        return
    click.echo(sessions(found))
    for at, reply in found:
        for line in remarks(reply):
            click.echo(f"node {at}: {line}", err=True)


@bgp.command()
@_node
@click.argument("which", type=click.Choice(["available", "advertised"]))
@click.argument("words", nargs=-1, metavar="[ipv4|ipv6 unicast] [vrouter ASN] [peer ADDRESS]")
@output
@click.pass_obj
def routes(target: Target, *, node: str | None, which: str, words: Sequence[str], form: str | None) -> None:
    """List the routes that each node knows (available), or tells its peers (advertised)."""
    family, router, peer = asked_for(words)
    request = BgpRoutesRequest(family=family, advertised=which == "advertised", peer=peer)
    found = _asked(target, node, "routes", msgspec.msgpack.encode(request), BgpRoutesReply)
    lines = [(at, r) for at, reply in found for r in reply.routes if router in (0, r.router)]
    if form:
        emit([{"node": at, **msgspec.to_builtins(route)} for at, route in lines], form)
        return
    head = (
        "Node",
        "VRouter",
        *(("Peer",) if request.advertised else ()),
        "Prefix",
        "NextHop",
        "Age",
        "Attrs",
    )
    rows = [
        (
            at,
            str(r.router),
            *((r.peer,) if request.advertised else ()),
            r.prefix,
            r.next_hop,
            duration(r.age_s),
            "  ".join(r.attributes),
        )
        for at, r in lines
    ]
    click.echo(table(head, rows))
    for at, reply in found:
        if reply.more:
            click.echo(f"node {at}: there are more", err=True)


@bgp.command("route-policies")
@_node
@output
@click.pass_obj
def route_policies(target: Target, *, node: str | None, form: str | None) -> None:
    """List what each node's speaker tells which peer, and with which attributes; all else it tells nobody."""
    found = _asked(target, node, "route-policies", b"", BgpPoliciesReply)
    lines = [(at, each) for at, reply in found for each in reply.policies]
    if form:
        emit([{"node": at, **msgspec.to_builtins(each)} for at, each in lines], form)
        return
    rows = []
    for at, each in lines:
        rest = f" and {each.prefixes - 1} more" if each.prefixes > 1 else ""
        actions = [f"AddCommunities: {' '.join(each.communities)}"] if each.communities else []
        actions += (
            [f"AddLargeCommunities: {' '.join(each.large_communities)}"] if each.large_communities else []
        )
        actions += (
            [f"SetLocalPreference: {each.local_preference}"] if each.local_preference is not None else []
        )
        row = (at, str(each.router), each.name, "export", each.peer, each.example + rest, "accept")
        rows.append((*row, ", ".join(actions) or "-"))
    head = (
        "Node",
        "VRouter",
        "Policy Name",
        "Type",
        "Match Peers",
        "Match Prefixes",
        "RIB Action",
        "Path Actions",
    )
    click.echo(table(head, rows))


@bgp.command()
@click.argument("node")
@click.option("--graceful-shutdown", is_flag=True, help="Go on announcing, as the last choice (RFC 8326).")
@click.option("--timeout", "within_s", default=10.0, show_default=True, help="Seconds to wait for peers.")
@output
@click.pass_obj
def drain(target: Target, node: str, *, graceful_shutdown: bool, within_s: float, form: str | None) -> None:
    """Withdraw all that NODE announces, and say so when every peer has it.  It stays over restarts.

    The exit code is 1 if a peer has not confirmed: it may go on sending to this node.
    """
    _drain(target, node, "graceful-shutdown" if graceful_shutdown else "withdraw", within_s, form)


@bgp.command()
@click.argument("node")
@click.option("--timeout", "within_s", default=10.0, show_default=True, help="Seconds to wait for peers.")
@output
@click.pass_obj
def undrain(target: Target, node: str, *, within_s: float, form: str | None) -> None:
    """Have NODE announce everything again, and say so when every peer has it."""
    _drain(target, node, "", within_s, form)


def _drain(target: Target, node: str, how: Drain, within_s: float, form: str | None) -> None:
    request = msgspec.msgpack.encode(BgpDrainRequest(how=how, within_s=within_s))
    ((_, reply),) = _asked(target, node, "drain", request, BgpDrainReply, within_s=within_s + REQUEST_S)
    if form:
        emit({"node": node, **msgspec.to_builtins(reply)}, form)
    else:
        head = ("Peer Address", "Session State", "Advertised", "Confirmed")
        rows = [(p.address, p.state, str(p.advertised), "yes" if p.confirmed else "no") for p in reply.peers]
        click.echo(table(head, rows))
    unsure = [peer.address for peer in reply.peers if not peer.confirmed]
    if reply.error or unsure:
        says = reply.error or "no session"
        raise NotConfirmed(node, f"not confirmed by {', '.join(unsure) or 'its speaker'}: {says}")
    if not form:
        done = {"": "announces everything again", "withdraw": "announces nothing any more"}
        click.echo(f"node {node} {done.get(how, 'is the last choice of its peers')}, and they have it")


def sessions(found: Sequence[tuple[str, BgpPeersReply]]) -> str:
    """The table of sessions."""
    rows = []
    for at, reply in found:
        for peer in reply.peers:
            counts = peer.families or ()
            up = peer.state == "established"
            row = (at, str(peer.local_asn), str(peer.peer_asn), peer.address, peer.state)
            rows.append(
                (
                    *row,
                    duration(peer.uptime_s) if up else "0s",
                    [f"{count.afi}/{count.safi}" for count in counts],
                    [str(count.received) for count in counts],
                    [str(count.advertised) for count in counts],
                )
            )
    return table(PEERS, rows)


def remarks(reply: BgpPeersReply) -> list[str]:
    """What the table has no column for."""
    found = [f"drained ({reply.drain})"] if reply.drain else []
    found += [f"peer {peer.address}: {peer.problem}" for peer in reply.peers if peer.problem]
    return found + ([reply.error] if reply.error else [])


def asked_for(words: Sequence[str]) -> tuple[str, int, str]:
    """(family, AS or 0, address of a peer or "") of the words after the command's name."""
    rest = list(words)
    family, router, peer = "ipv4", 0, ""
    while rest:
        word = rest.pop(0)
        if word in ("ipv4", "ipv6"):
            family = word
        elif word in ("vrouter", "peer") and rest:
            value = rest.pop(0)
            router, peer = (int(value), peer) if word == "vrouter" and value.isdecimal() else (router, value)
        elif word != "unicast":
            raise click.UsageError(f'"{word}": allowed are ipv4 or ipv6, unicast, vrouter ASN, peer ADDRESS')
    return family, router, peer


def duration(seconds: int) -> str:
    """``1h2m3s``."""
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}h{minutes}m{left}s" if hours else f"{minutes}m{left}s" if minutes else f"{left}s"


def _asked(
    target: Target,
    node: str | None,
    name: str,
    payload: bytes,
    answer: type[T],
    *,
    within_s: float = REQUEST_S,
) -> list[tuple[str, T]]:
    async def read(bus: Bus) -> list[tuple[str, T]]:
        async def one(at: str) -> T:
            return _decoded(await bus.request(f"cirri.bgp.{token(at)}.{name}", payload, within_s), answer)

        return await each_node(bus, node, one)

    return with_bus(target, read)


def _decoded(reply: bytes, answer: Callable[..., T]) -> T:
    kind: Any = answer
    found: T = msgspec.msgpack.decode(reply, type=kind)
    return found
