"""What leads where in the node's own stack: others' pods behind their nodes, nobody's addresses nowhere.

Every function blocks: call it in a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, ip_address
from socket import AF_INET, AF_INET6

from cirri.datapath.attach import Network, Ways
from cirri.layout import MARK_MASK, Mark
from cirri.netlink import Channel, NetlinkRefused, Request

LINK_LOCAL = IPv4Network("169.254.0.0/16")
RULES = 32000
"""Priority of the first of our rules: before the main table's, 32766."""
PROXY_RULE, PROXY_TABLE = 9, 2004
"""Of packets that programs mark for a proxy's socket."""
LOOPBACK = 1
"""Index of the loopback device of every network namespace."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The routes of a moment."""

    uplink: int = 0
    """Index of the device to other nodes; 0: there is none, and no way leads to them."""
    tunnel: int = 0
    """Index of the device of tunnels; 0: packets take the uplink as they are."""
    sources: tuple[str, ...] = ()
    """This node's addresses: what it sends by the tunnel bears the first of the family."""
    ways: Ways = field(default_factory=dict)
    """The next hop to each pod range of other nodes."""
    refused: frozenset[Network] = frozenset()
    """Where packets without a better route end: the node's own pod ranges, the Services' ranges.

    Without them a packet to an address that nobody has would follow the default route, and come back
    from a router that knows whose range it is, until its hops are used up.
    """
    certain: bool = False
    """Every node has said what it has, so that whatever else is led to is led to no more."""


def realize(wanted: Wanted, before: Wanted) -> list[str]:
    """Make our routes those *wanted*, where *before* was wanted last; what could not be done.

    Ways that an earlier process left are deleted only when that is certain.
    """
    faults = []
    with Channel() as node:
        for request in _requests(node, wanted, before):
            try:
                node.apply([request])
            except NetlinkRefused as error:
                faults.append(str(error))
    return faults


def _requests(node: Channel, wanted: Wanted, before: Wanted) -> Iterator[Request]:
    from cirri.netlink import messages as m
    from cirri.netlink import read

    # A pod has no business with link-local addresses beyond the node (RFC 3927, section 7), unless
    # the node has a route to them of its own: a cloud's metadata, say.  The node's traffic is not ours.
    yield m.rule(RULES, LINK_LOCAL, source_device="lo")
    yield m.rule(RULES + 1, LINK_LOCAL, at_least=LINK_LOCAL.prefixlen)
    yield m.rule(RULES + 2, LINK_LOCAL, refuse=True)
    # What programs mark for a proxy is delivered to its socket, wherever it was to go.
    for family in (AF_INET, AF_INET6):
        yield m.everything_is_local(LOOPBACK, table=PROXY_TABLE, family=family)
        yield m.mark_rule(PROXY_RULE, Mark.TO_PROXY, MARK_MASK, table=PROXY_TABLE, family=family)
    refused = read.refusals(node)
    yield from (m.refusal(cidr) for cidr in wanted.refused - refused)
    yield from (m.refusal_delete(cidr) for cidr in refused - wanted.refused)
    if not wanted.uplink:
        return
    led = {
        route.destination: route
        for route in read.routes(node)
        if route.protocol == m.RTPROT_CIRRI
        and (route.gateway is not None or (wanted.tunnel and route.index == wanted.tunnel))
    }
    sources = {a.version: a for a in map(ip_address, reversed(wanted.sources))}
    for cidr, route in led.items():
        if cidr not in wanted.ways and (wanted.certain or cidr in before.ways):
            yield m.route_delete(cidr, index=route.index, gateway=route.gateway)
    for cidr, hop in wanted.ways.items():
        found = led.get(cidr)
        way = (wanted.tunnel, None) if wanted.tunnel else (wanted.uplink, hop)
        if found is None or (found.index, found.gateway) != way:
            source = sources.get(cidr.version) if wanted.tunnel else None
            yield m.route(cidr, index=way[0], gateway=way[1], source=source)
