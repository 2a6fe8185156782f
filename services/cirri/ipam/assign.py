"""Which node has which ranges.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from ipaddress import ip_network

from cirri.addresses import NodeAddresses
from cirri.addresses.pools import Network, Pool, free_block
from cirri.model import NodeStatus, PodCIDRs

FULL = 0.9
"""A node gets one more range of a family when its addresses of it are used to this part."""

SPARE = 4
"""... or when fewer of them are left than this."""


def assign(
    pools: Iterable[Pool],
    nodes: Set[str],
    reports: Mapping[str, NodeStatus],
    current: Mapping[str, PodCIDRs],
) -> dict[str, PodCIDRs]:
    """Ranges of every node in *nodes* (the Node objects); those of others are free.

    *reports* is what nodes say of themselves, *current* what they have been given.  What a node
    has it keeps; what it reports and nobody else has it gets back.
    """
    enabled = list(pools)
    given = {node: list(map(ip_network, current[node].cidrs)) for node in sorted(nodes) if node in current}
    conflicts: dict[str, str] = {}
    for node in sorted(nodes & reports.keys()):
        _adopt(node, reports[node], given, conflicts)
    # Ranges that are in force on nodes without a Node object are handed out last.
    elsewhere = [
        ip_network(text) for node, report in reports.items() if node not in nodes for text in report.pod_cidrs
    ]
    errors: dict[str, list[str]] = {node: [conflicts[node]] for node in conflicts}
    for node in sorted(nodes & (reports.keys() | current.keys())):
        mine = given.setdefault(node, [])
        left = _left(reports.get(node), mine)
        for pool in enabled:
            has = any(net.version == pool.version for net in mine)
            spare, total = left.get(pool.version, (0, 0))
            if has and (not total or (spare > (1 - FULL) * total and spare >= SPARE)):
                continue
            block = _take(pool, given, elsewhere)
            if block is not None:
                mine.append(block)
            elif not has or spare < SPARE:
                errors.setdefault(node, []).append(_exhausted(node, pool, has=has))
    return {
        node: PodCIDRs(node=node, cidrs=tuple(map(str, nets)), error="; ".join(errors.get(node, ())))
        for node, nets in given.items()
    }


def _adopt(node: str, report: NodeStatus, given: dict[str, list[Network]], conflicts: dict[str, str]) -> None:
    for text in report.pod_cidrs:
        reported = ip_network(text)
        if reported in given.get(node, ()):
            continue
        owner = next(
            (other for other, nets in given.items() for net in nets if _overlap(net, reported)), None
        )
        if owner is None:
            given.setdefault(node, []).append(reported)
        elif owner != node:
            conflicts[node] = f"{node} uses {reported}, which belongs to {owner}: its pods must be replaced"


def _take(pool: Pool, given: Mapping[str, list[Network]], elsewhere: list[Network]) -> Network | None:
    used = [net for nets in given.values() for net in nets]
    return free_block(pool, used + elsewhere) or free_block(pool, used)


def _left(report: NodeStatus | None, mine: list[Network]) -> dict[int, tuple[int, int]]:
    """By family: how many of the node's addresses are left, and of how many.

    Nothing before the node has taken up the ranges it was given.
    """
    if report is None or not set(map(str, mine)) <= set(report.pod_cidrs):
        return {}
    ranges, versions = NodeAddresses(tuple(mine)), {net.version for net in mine}
    # A pod has one address of each family that its node has.
    totals = {version: ranges.total(version) for version in versions}
    return {
        version: (total - -(-report.addresses_used // len(versions)), total)
        for version, total in totals.items()
    }


def _exhausted(node: str, pool: Pool, *, has: bool) -> str:
    cidrs = ", ".join(map(str, pool.cidrs))
    what = f"no further /{pool.mask_size} range" if has else f"no free /{pool.mask_size} range"
    return f"{what} in {cidrs} for {node}: add a prefix to cluster-pool-ipv{pool.version}-cidr"


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)
