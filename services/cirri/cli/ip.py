"""``cirri ip``: which address has which identity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

import click

from cirri.cli.bus import require_node, with_bus
from cirri.cli.context import Target
from cirri.cli.output import emit, output, table
from cirri.labels import CIDR, WORLD_SPACE, Label, Reserved, in_space, prefix_of
from cirri.model import ENDPOINTS, IDENTITIES, NODES, Endpoint, Identity, NodeStatus

if TYPE_CHECKING:
    from cirri.kv import Bus


class Owner(NamedTuple):
    """Whose a prefix is."""

    prefix: str
    identity: int
    node: str
    source: str
    """``namespace/pod``, or what kind of address it is."""


@click.group()
def ip() -> None:
    """Show which address has which identity."""


@ip.command("list")
@click.option("--node", metavar="NODE", help="As this node sees it: its own addresses are the host.")
@output
@click.pass_obj
def list_(target: Target, *, node: str | None, form: str | None) -> None:
    """List addresses of pods and nodes, prefixes that policies name, and what everything else is.

    This is what the services say; `cirri bpf ipcache list` shows what a node's kernel has.
    """

    async def read(bus: Bus) -> tuple[list[Endpoint], list[NodeStatus], list[Identity]]:
        await require_node(bus, node)
        endpoints = [e.value for e in await bus.entries(ENDPOINTS)]
        nodes = [e.value for e in await bus.entries(NODES)]
        return endpoints, nodes, [e.value for e in await bus.entries(IDENTITIES)]

    endpoints, nodes, identities = with_bus(target, read)
    found = sorted((*owners(endpoints, nodes, node), *prefixes(identities)), key=_order)
    if form:
        emit([owner._asdict() for owner in found], form)
        return
    rows = [(o.prefix, str(o.identity), o.source, o.node) for o in found]
    click.echo(table(("IP", "IDENTITY", "SOURCE", "NODE"), rows))


def owners(endpoints: Iterable[Endpoint], nodes: Iterable[NodeStatus], viewer: str | None) -> Iterator[Owner]:
    """Every prefix with an identity; *viewer* is the node whose own addresses are the host's."""
    yield Owner("0.0.0.0/0", int(Reserved.WORLD_IPV4), "", "world")
    yield Owner("::/0", int(Reserved.WORLD_IPV6), "", "world")
    for endpoint in endpoints:
        for address in filter(None, (endpoint.ipv4, endpoint.ipv6)):
            name = f"{endpoint.namespace}/{endpoint.pod}"
            yield Owner(_prefix(address), endpoint.identity, endpoint.node, name)
    for status in nodes:
        own = status.node == viewer
        for address in status.addresses:
            number = Reserved.HOST if own else Reserved.REMOTE_NODE
            yield Owner(_prefix(address), int(number), status.node, "host" if own else "node")


def prefixes(identities: Iterable[Identity]) -> Iterator[Owner]:
    """The prefixes that *identities* stand for: each has one, which says so in a label."""
    for identity in identities:
        if in_space(identity.id, WORLD_SPACE):
            for label in map(Label.parse, identity.labels):
                if label.source == CIDR:
                    yield Owner(str(prefix_of(label.key)), identity.id, "", "prefix")


def _prefix(address: str) -> str:
    return f"{address}/{ip_address(address).max_prefixlen}"


def _order(owner: Owner) -> tuple[int, int, int]:
    address, _, length = owner.prefix.partition("/")
    return ip_address(address).version, int(ip_address(address)), int(length)
