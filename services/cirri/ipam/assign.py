"""Which node has which ranges.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from ipaddress import ip_network

from cirri.addresses.pools import Network, Pool, free_block
from cirri.model import NodeStatus, PodCIDRs

FULL = 0.9
"""A node whose addresses are used to this part gets one more range."""

SPARE = 4
"""... or one that has fewer addresses left than this."""


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
        grows = _nearly_full(reports.get(node), mine)
        for pool in enabled:
            has = any(net.version == pool.version for net in mine)
            if has and not grows:
                continue
            block = _take(pool, given, elsewhere)
            if block is not None:
                mine.append(block)
            elif not has or not _spare(reports[node]):
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


def _nearly_full(report: NodeStatus | None, mine: list[Network]) -> bool:
    """Whether the node needs one more range; not before it has taken up those it was given."""
    if report is None or not report.addresses_total or not set(map(str, mine)) <= set(report.pod_cidrs):
        return False
    return report.addresses_used >= FULL * report.addresses_total or not _spare(report)


def _spare(report: NodeStatus) -> bool:
    return report.addresses_total - report.addresses_used >= SPARE


def _exhausted(node: str, pool: Pool, *, has: bool) -> str:
    cidrs = ", ".join(map(str, pool.cidrs))
    what = f"no further /{pool.mask_size} range" if has else f"no free /{pool.mask_size} range"
    return f"{what} in {cidrs} for {node}: add a prefix to cluster-pool-ipv{pool.version}-cidr"


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)
