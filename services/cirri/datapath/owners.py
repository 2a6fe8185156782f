"""Who owns which address: entries of the ipcache from endpoints and nodes.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network

from cirri.labels import Reserved
from cirri.layout import IpcacheKey, IpcacheValue, address16
from cirri.layout.mirror import NO_ADDRESS
from cirri.model import Endpoint, NodeStatus

Entries = Mapping[IpcacheKey, IpcacheValue]
LOCAL, NODE, ENDPOINT, RANGE, API_SERVER, PREFIX, WORLD = range(7)
"""Rank of a claim: where two claim the same prefix, the smaller rank holds."""

EVERYWHERE: Entries = {
    IpcacheKey.of(ip_network("0.0.0.0/0")): IpcacheValue(identity=Reserved.WORLD_IPV4),
    IpcacheKey.of(ip_network("::/0")): IpcacheValue(identity=Reserved.WORLD_IPV6),
}
"""What belongs to nobody.  Addresses of both families lie in one trie: without the first entry IPv4 would
belong to an IPv6 prefix as short as ``::/8``."""


def of_endpoint(ipv4: str, ipv6: str, identity: int, hops: Iterable[str] = ()) -> Entries:
    """A pod's addresses; *hops*: addresses of the node that it is behind, none if it is here."""
    if not identity:
        return {}
    return {host_key(a): IpcacheValue(identity=identity, node=_hop(a, hops)) for a in (ipv4, ipv6) if a}


def of_remote(endpoint: Endpoint, nodes: Mapping[str, NodeStatus]) -> Entries:
    """The addresses of another node's endpoint."""
    node = nodes.get(endpoint.node)
    return of_endpoint(
        endpoint.ipv4, endpoint.ipv6, endpoint.identity, hops=node.addresses if node is not None else ()
    )


def of_addresses(addresses: Iterable[str], identity: int) -> Entries:
    """Addresses of nodes, with the *identity* that nodes have."""
    return {host_key(a): IpcacheValue(identity=identity) for a in addresses}


def of_ranges(status: NodeStatus, *, here: bool) -> Entries:
    """A node's pod ranges: an address there that no endpoint is known for is not the world's."""
    hops = () if here else status.addresses
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


def _hop(address: str, hops: Iterable[str]) -> bytes:
    version = ip_address(address).version
    return next((address16(h) for h in hops if ip_address(h).version == version), NO_ADDRESS)
