"""Who owns which address: entries of the ipcache from endpoints and nodes.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network

from cirri.labels import Reserved
from cirri.layout import IpcacheKey, IpcacheValue, address16
from cirri.layout.mirror import NO_ADDRESS
from cirri.model import Endpoint, NodeStatus

Entries = Mapping[IpcacheKey, IpcacheValue]
Hops = Mapping[int, bytes]
"""By version of a packet: the address of the node that it is sent to."""
NO_HOPS: Hops = {}
LOCAL, NODE, ENDPOINT, RANGE, API_SERVER, PREFIX, WORLD = range(7)
"""Rank of a claim: where two claim the same prefix, the smaller rank holds."""

EVERYWHERE: Entries = {
    IpcacheKey.of(ip_network("0.0.0.0/0")): IpcacheValue(identity=Reserved.WORLD_IPV4),
    IpcacheKey.of(ip_network("::/0")): IpcacheValue(identity=Reserved.WORLD_IPV6),
}
"""What belongs to nobody.  Addresses of both families lie in one trie: without the first entry IPv4 would
belong to an IPv6 prefix as short as ``::/8``."""


def hops_of(addresses: Iterable[str], *, tunnel: bool = False) -> Hops:
    """How another node with *addresses* is reached: by its address of the packet's family, in a tunnel
    always by its IPv4 address."""
    found: dict[int, bytes] = {}
    for hop in map(ip_address, addresses):
        found.setdefault(hop.version, address16(str(hop)))
    if not tunnel:
        return found
    return {4: found[4], 6: found[4]} if 4 in found else NO_HOPS


def of_endpoint(ipv4: str, ipv6: str, identity: int, hops: Hops = NO_HOPS) -> Entries:
    """A pod's addresses; *hops*: of the node that it is behind, none if it is here."""
    if not identity:
        return {}
    return {host_key(a): IpcacheValue(identity=identity, node=_hop(a, hops)) for a in (ipv4, ipv6) if a}


def of_remote(endpoint: Endpoint, nodes: Mapping[str, NodeStatus], *, tunnel: bool = False) -> Entries:
    """The addresses of another node's endpoint."""
    node = nodes.get(endpoint.node)
    hops = hops_of(node.addresses, tunnel=tunnel) if node is not None else NO_HOPS
    return of_endpoint(endpoint.ipv4, endpoint.ipv6, endpoint.identity, hops)


def of_addresses(addresses: Iterable[str], identity: int) -> Entries:
    """Addresses of nodes, with the *identity* that nodes have."""
    return {host_key(a): IpcacheValue(identity=identity) for a in addresses}


def node_hop(address: str, status: NodeStatus, *, tunnel: bool) -> bytes:
    """How pods reach an *address* of another node itself: the node's stack knows the way.

    In tunnel mode by the tunnel, as its answers come.  That an IPv4 address is behind itself tells programs
    that tunnels from there are to be trusted.
    """
    if not tunnel:
        return NO_ADDRESS
    if ip_address(address).version == 4:
        return address16(address)
    return _hop(address, hops_of(status.addresses, tunnel=True))


def of_ranges(status: NodeStatus, *, here: bool, tunnel: bool = False) -> Entries:
    """A node's pod ranges: an address there that no endpoint is known for is not the world's."""
    hops = NO_HOPS if here or not status.pod_cidrs else hops_of(status.addresses, tunnel=tunnel)
    return {
        IpcacheKey.of(ip_network(cidr)): IpcacheValue(
            identity=Reserved.UNMANAGED, node=_hop(cidr.partition("/")[0], hops)
        )
        for cidr in status.pod_cidrs
    }


class Claims:
    """Who claims which prefix, and what follows for the map.

    ``claim`` replaces all that a claimant said before and returns what changes: a value to
    write, or None where nobody claims the prefix any more.
    """

    def __init__(self) -> None:
        self._said: dict[tuple[int, str], Entries] = {}
        self._claims: dict[IpcacheKey, dict[tuple[int, str], IpcacheValue]] = {}

    def claim(self, rank: int, name: str, entries: Entries) -> dict[IpcacheKey, IpcacheValue | None]:
        """*name* claims exactly *entries* from now on."""
        who = (rank, name)
        before = self._said.get(who, {})
        if before == entries:
            return {}
        changes: dict[IpcacheKey, IpcacheValue | None] = {}
        for key in {*before, *entries}:
            claims = self._claims.setdefault(key, {})
            old = claims[min(claims)] if claims else None
            if key in entries:
                claims[who] = entries[key]
            else:
                claims.pop(who, None)
            new = claims[min(claims)] if claims else None
            if not claims:
                del self._claims[key]
            if new != old:
                changes[key] = new
        if entries:
            self._said[who] = entries
        else:
            self._said.pop(who, None)
        return changes

    def wanted(self) -> dict[IpcacheKey, IpcacheValue]:
        """The whole map as it should be."""
        return {key: claims[min(claims)] for key, claims in self._claims.items()}

    def get(self, key: IpcacheKey) -> IpcacheValue | None:
        """What the map should have under *key*."""
        claims = self._claims.get(key)
        return claims[min(claims)] if claims else None

    def rank(self, key: IpcacheKey) -> int:
        """Of the strongest claim to *key*; past :data:`WORLD` if there is none."""
        return min((rank for rank, _ in self._claims.get(key, ())), default=WORLD + 1)


def host_key(address: str) -> IpcacheKey:
    """The key of one address."""
    return IpcacheKey(prefix_len=128, address=address16(address))


def _hop(address: str, hops: Hops) -> bytes:
    return hops.get(ip_address(address).version, NO_ADDRESS)
