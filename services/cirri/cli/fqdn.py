"""``cirri fqdn``: names that pods were told addresses of, and the names that policies speak of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from cirri.cli.bus import each_node, with_bus
from cirri.cli.context import Target
from cirri.cli.output import emit, output, table
from cirri.errors import CirriError
from cirri.model.bucket import token
from cirri.model.request import LearntName, NameCacheReply, NameCacheRequest, NameUse, NameUsesReply

if TYPE_CHECKING:
    from cirri.kv import Bus

REQUEST_S = 5.0
_node = click.option("--node", "-n", metavar="NODE", help="Only this node's.")
_endpoint = click.option(
    "--endpoint", "-e", type=int, metavar="ID", help="Only this endpoint's (with --node)."
)
_pattern = click.option("--matchpattern", "-p", default="", metavar="PATTERN", help="Only names like this.")


class NotAsked(CirriError):
    """A node's DNS proxy does not understand the question."""

    def __init__(self, node: str, why: str) -> None:
        self.node, self.why = node, why
        super().__init__(f"node {node}: {why}")


@click.group()
def fqdn() -> None:
    """Show names that policies speak of, and what pods were told about them."""


@fqdn.group()
def cache() -> None:
    """Names that pods were told addresses of, on every node."""


@cache.command("list")
@_node
@_endpoint
@_pattern
@output
@click.pass_obj
def list_(
    target: Target, *, node: str | None, endpoint: int | None, matchpattern: str, form: str | None
) -> None:
    """List them, with the time until which each address holds."""
    found = with_bus(target, lambda bus: _cache(bus, node, endpoint, matchpattern, clean=False))
    if form:
        emit([{"node": at, **msgspec.to_builtins(one)} for at, one in found], form)
        return
    click.echo(learnt(found))


@cache.command()
@_node
@_endpoint
@_pattern
@click.option("--force", "-f", is_flag=True, help="Do not ask.")
@click.pass_obj
def clean(target: Target, *, node: str | None, endpoint: int | None, matchpattern: str, force: bool) -> None:
    """Forget them: pods have to ask again before they may open new connections."""
    if not force:
        click.confirm("Forget these names? Pods must ask for them again", abort=True)
    found = with_bus(target, lambda bus: _cache(bus, node, endpoint, matchpattern, clean=True))
    click.echo(f"{len(found)} names forgotten")


@fqdn.command()
@_node
@output
@click.pass_obj
def names(target: Target, *, node: str | None, form: str | None) -> None:
    """List the names and patterns that policies of each node speak of, and what is known under them."""

    async def read(bus: Bus) -> list[tuple[str, NameUse]]:
        async def one(at: str) -> NameUsesReply:
            return msgspec.msgpack.decode(await _request(bus, at, "names"), type=NameUsesReply)

        return [
            (at, use) for at, reply in await each_node(bus, node, one, raises=NotAsked) for use in reply.uses
        ]

    found = with_bus(target, read)
    if form:
        emit([{"node": at, **msgspec.to_builtins(use)} for at, use in found], form)
        return
    click.echo(used(found))


def learnt(found: Sequence[tuple[str, LearntName]]) -> str:
    """The table of names; each address with its end."""
    rows = [
        (
            node,
            str(one.endpoint),
            one.pod,
            one.name,
            [_when(until) for _, until in one.addresses],
            [address for address, _ in one.addresses],
        )
        for node, one in sorted(found, key=lambda each: (each[0], each[1].endpoint, each[1].name))
    ]
    return table(("NODE", "ENDPOINT", "POD", "FQDN", "EXPIRATIONTIME", "IPS"), rows)


def used(found: Sequence[tuple[str, NameUse]]) -> str:
    """The table of selectors."""
    rows = [
        (node, _written(use.entry), [str(one) for one in use.identities], list(use.addresses) or "-")
        for node, use in found
    ]
    return table(("NODE", "NAME", "IDENTITIES", "IPS"), rows)


def _written(entry: str) -> str:
    told: dict[str, Any] = msgspec.json.decode(entry)
    return ", ".join(f"{field}: {value}" for field, value in told.items())


def _when(until: int) -> str:
    return datetime.fromtimestamp(until, UTC).isoformat().replace("+00:00", "Z")


async def _cache(
    bus: Bus, node: str | None, endpoint: int | None, pattern: str, *, clean: bool
) -> list[tuple[str, LearntName]]:
    request = msgspec.msgpack.encode(NameCacheRequest(clean=clean, endpoint=endpoint, pattern=pattern))

    async def one(at: str) -> NameCacheReply:
        reply = msgspec.msgpack.decode(await _request(bus, at, "cache", request), type=NameCacheReply)
        if reply.error:
            raise NotAsked(at, reply.error)
        return reply

    return [
        (at, name) for at, reply in await each_node(bus, node, one, raises=NotAsked) for name in reply.names
    ]


async def _request(bus: Bus, node: str, name: str, payload: bytes = b"") -> bytes:
    return await bus.request(f"cirri.dnsproxy.{token(node)}.{name}", payload, REQUEST_S)
