"""``cirri lbipam``: addresses of LoadBalancer Services, and what a change of pools would do to them."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import click

from cirri.cli.apply import POOL
from cirri.cli.bus import with_bus
from cirri.cli.context import Target
from cirri.cli.output import emit, output, table
from cirri.errors import CirriError
from cirri.lbipam import Assignment, Claim, LbPool, Move, assign, claim_of, labels_of, moves, pool_of
from cirri.lbipam.config import has_pools_by_default
from cirri.manifests import resources
from cirri.manifests.api import ObjectRef
from cirri.model import RESOURCES, Resource, resource_key
from cirri.model.config import CONFIG, config_data

if TYPE_CHECKING:
    from cirri.kv import Bus

YOUNGEST = "~"
"""Sorts after every time."""


class AddressesMove(CirriError):
    """A change takes addresses away that are in use."""

    def __init__(self, found: Sequence[Move]) -> None:
        says = "\n".join(f"  {line}" for line in map(sentence, found))
        super().__init__(f"nothing has changed: Services would lose addresses (--yes: so be it):\n{says}")


class World(NamedTuple):
    """What there is."""

    pools: dict[str, LbPool]
    claims: list[Claim]

    def assigned(self, pools: Mapping[str, LbPool]) -> Assignment:
        """Who would have what, were *pools* all there are."""
        return assign(pools.values(), self.claims)


@click.group()
def lbipam() -> None:
    """Show addresses of LoadBalancer Services, and plan changes of their pools."""


@lbipam.command("list")
@output
@click.pass_obj
def list_(target: Target, *, form: str | None) -> None:
    """List each Service that asks for addresses, what it has, and out of which pool."""
    world = with_bus(target, _world)
    found = world.assigned(world.pools).services
    rows: list[dict[str, Sequence[str]]] = [
        {
            "service": "/".join(claim.key),
            "addresses": [str(address) for address in claim.held],
            "pools": sorted({p.name for p in world.pools.values() for a in claim.held if p.has(a)}),
            "reason": found[claim.key].reason,
            "message": found[claim.key].message,
        }
        for claim in sorted(world.claims, key=lambda each: each.key)
    ]
    if form:
        emit(rows, form)
        return
    head = ("SERVICE", "ADDRESSES", "POOLS", "REQUEST", "MESSAGE")
    click.echo(table(head, [[_joined(cell) for cell in row.values()] for row in rows]))


@lbipam.command()
@click.option("-f", "--filename", "files", multiple=True, metavar="FILE", help="Pools as they are to be.")
@click.option("--delete", "gone", multiple=True, metavar="NAME", help="A pool that is to go; repeatable.")
@output
@click.pass_obj
def plan(target: Target, files: Sequence[str], gone: Sequence[str], *, form: str | None) -> None:
    """Show which Services would get, change or lose addresses.  Changes nothing.

    The exit code is 1 if an address that is in use would be lost.
    """
    if not files and not gone:
        raise click.UsageError("give -f FILE or --delete NAME")
    stdin = sys.stdin.read() if "-" in files else None
    found = with_bus(target, _planned(resources(files, stdin) if files else (), gone))
    if form:
        emit([{**one._asdict(), "loses": one.loses} for one in found], form)
    else:
        click.echo("\n".join(map(sentence, found)) or "No Service would have other addresses.")
    if any(one.loses for one in found):
        raise click.exceptions.Exit(1)


def guard(target: Target, put: Iterable[Resource] = (), gone: Iterable[ObjectRef] = ()) -> None:
    """Raise :class:`AddressesMove` if pools in a change take addresses away that are in use."""
    pools = [each for each in put if each.kind == POOL]
    names = [each.name for each in gone if each.kind == POOL]
    if pools or names:
        found = [one for one in with_bus(target, _planned(pools, names)) if one.loses]
        if found:
            raise AddressesMove(found)


async def _world(bus: Bus) -> World:
    services, pools, namespaces, config = [
        [entry.value for entry in await bus.entries(RESOURCES, pattern)]
        for pattern in (
            resource_key("Service", "*"),
            resource_key(POOL),
            resource_key("Namespace"),
            CONFIG,
        )
    ]
    default = has_pools_by_default(config_data({each.name: each for each in config}))
    around = labels_of(namespaces)
    asking = (claim_of(each, default=default, namespaces=around) for each in services)
    claims = [claim for claim in asking if claim is not None]
    return World({each.name: pool_of(each) for each in pools}, claims)


def _planned(put: Iterable[Resource], gone: Iterable[str]) -> Callable[[Bus], Awaitable[list[Move]]]:
    """What would come of pools that change or go."""

    async def read(bus: Bus) -> list[Move]:
        world = await _world(bus)
        then = {**world.pools, **{each.name: _as_new(each, world) for each in put if each.kind == POOL}}
        then = {name: pool for name, pool in then.items() if name not in set(gone)}
        return moves(world.claims, world.assigned(then))

    return read


def _as_new(pool: Resource, world: World) -> LbPool:
    """As it would be stored: as old as it is, or younger than all others."""
    before = world.pools.get(pool.name)
    return replace(pool_of(pool), created=before.created if before else YOUNGEST)


def sentence(move: Move) -> str:
    """For people."""
    then = _joined(move.then) if move.then else f"none ({move.reason})" if move.reason else "none"
    return f"{move.namespace}/{move.name}: {_joined(move.held) or 'none'} -> {then}"


def _joined(cell: Sequence[str]) -> str:
    return cell if isinstance(cell, str) else ",".join(cell)
