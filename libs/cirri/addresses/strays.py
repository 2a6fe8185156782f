"""Ranges that nodes have hold the pools that they were cut from in place."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

from cirri.addresses.config import InvalidPools, Pools
from cirri.addresses.pools import Network, Pool, overlapping


def refuse_strays(pools: Pools, given: Iterable[str]) -> None:
    """Check that every range in *given* is a block of one of *pools*.

    A comparison with the pools before would forget them at a restart.  Raises InvalidPools.
    """
    for network in map(ip_network, given):
        _refuse_stray(pools.ipv4 if network.version == 4 else pools.ipv6, network)


def _refuse_stray(pool: Pool, network: Network) -> None:
    name = f"cluster-pool-ipv{pool.version}"
    around = [cidr for cidr in pool.cidrs if overlapping([cidr, network])]
    if not around or around[0].prefixlen > network.prefixlen:
        why = f"a node has {network}, which must stay in the list"
        raise InvalidPools(f"{name}-cidr", " ".join(map(str, pool.cidrs)), why)
    if network.prefixlen != pool.mask_size:
        why = f"a node has {network}: the mask size cannot be changed"
        raise InvalidPools(f"{name}-mask-size", str(pool.mask_size), why)
