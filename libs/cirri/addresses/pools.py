"""A cluster pool: a list of prefixes that blocks of one size are cut from, one or more for each node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Pool:
    """Prefixes of one family; the list may grow, its entries never change."""

    version: int
    """4 or 6"""
    cidrs: tuple[Network, ...] = ()
    mask_size: int = 24
    """Prefix length of the block that a node gets."""


def free_block(pool: Pool, used: Iterable[Network]) -> Network | None:
    """The first block of *pool* that overlaps none of *used*; None: the pool is exhausted."""
    taken = sorted((_first(net), _last(net)) for net in used if net.version == pool.version)
    bits = 32 if pool.version == 4 else 128
    size = 1 << (bits - pool.mask_size)
    for cidr in pool.cidrs:
        start = _first(cidr)
        for first, last in taken:
            if last < start:
                continue
            if first >= start + size:
                break
            start = -(-(last + 1) // size) * size  # the next aligned block after it
        if start + size - 1 <= _last(cidr):
            return ip_network((start, pool.mask_size))
    return None


def capacity(pool: Pool) -> int:
    """How many blocks *pool* holds when nothing is taken."""
    return sum(1 << (pool.mask_size - cidr.prefixlen) for cidr in pool.cidrs)


def overlapping(networks: Iterable[Network]) -> tuple[Network, Network] | None:
    """Two of *networks* that share an address, or None."""
    ordered = sorted(networks, key=lambda net: (net.version, _first(net), net.prefixlen))
    widest: Network | None = None
    for net in ordered:
        if widest is not None and widest.version == net.version and _first(net) <= _last(widest):
            return widest, net
        widest = net
    return None


def _first(net: Network) -> int:
    return int(net.network_address)


def _last(net: Network) -> int:
    return int(net.broadcast_address)
