"""``cirri node``: the cluster's nodes, as they describe themselves and see each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import click

from cirri.cli.bus import with_bus
from cirri.cli.context import Target
from cirri.cli.output import Cell, emit, output, table
from cirri.cli.reach import ClusterHealth, cluster_health
from cirri.model import HEALTH, NODES, POD_CIDRS, RESOURCES, NodeStatus, PodCIDRs, resource_key

if TYPE_CHECKING:
    from cirri.kv import Bus
    from cirri.model import Bucket

T = TypeVar("T")

HEADER = ("Name", "IPv4 Address", "Endpoint CIDR", "IPv6 Address", "Endpoint CIDR", "Routing", "Health")


class Described(NamedTuple):
    """A node."""

    name: str
    addresses: tuple[str, ...]
    podCIDRs: tuple[str, ...]  # noqa: N815 - as -o json says it
    routing: str
    """"": it has not said."""
    health: str
    """``reachable``, ``unreachable``, ``unknown``, or "" where nodes are not probed."""
    errors: tuple[str, ...]


@click.group()
def node() -> None:
    """Show the cluster's nodes: addresses, ranges of pod addresses, routing, health."""


@node.command("list")
@output
@click.pass_obj
def list_(target: Target, form: str | None) -> None:
    """List nodes; `cirri status` says what is wrong with them, `cirri health status` who reaches whom."""

    async def read(bus: Bus) -> list[Described]:
        from cirri.kv import BucketMissing

        async def every(bucket: Bucket[T], pattern: str = ">") -> list[T]:
            try:
                return [entry.value for entry in await bus.entries(bucket, pattern)]
            except BucketMissing:
                return []

        statuses, ranges = await every(NODES), await every(POD_CIDRS)
        names = {each.name for each in await every(RESOURCES, resource_key("Node", "*"))}
        names |= {status.node for status in statuses}
        health = cluster_health(names, await every(HEALTH), datetime.now(UTC))
        return described(names, {s.node: s for s in statuses}, {r.node: r for r in ranges}, health)

    found = with_bus(target, read)
    if form:
        emit([each._asdict() for each in found], form)
    else:
        click.echo(table(HEADER, [row(each) for each in found]) if found else "No nodes.")


def described(
    names: Iterable[str],
    statuses: Mapping[str, NodeStatus],
    ranges: Mapping[str, PodCIDRs],
    health: ClusterHealth,
) -> list[Described]:
    """Every node by name; ranges that it does not use yet are those that it was given."""
    states = {each.name: each.state for each in health.nodes} if health.enabled else {}
    found = []
    for name in sorted(names):
        status, given = statuses.get(name), ranges.get(name)
        cidrs = (status.pod_cidrs if status else ()) or (given.cidrs if given else ())
        found.append(
            Described(
                name=name,
                addresses=status.addresses if status else (),
                podCIDRs=cidrs,
                routing=status.features.get("routing", "") if status else "",
                health=states.get(name, ""),
                errors=status.errors if status else ("has not reported",),
            )
        )
    return found


def row(one: Described) -> list[Cell]:
    """Its addresses and ranges below each other, each in the column of its family."""

    def of(version: int) -> tuple[Cell, Cell]:
        addresses = [each for each in one.addresses if ip_address(each).version == version]
        cidrs = [each for each in one.podCIDRs if ip_network(each).version == version]
        return addresses or "-", cidrs or "-"

    return [one.name, *of(4), *of(6), one.routing or "-", one.health or "-"]
