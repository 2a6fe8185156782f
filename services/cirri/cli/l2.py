"""``cirri l2``: which node answers for which address on the segment, why, and that it be another one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import click
from msgspec import json

from cirri.cli.bus import require_node, with_bus
from cirri.cli.context import Target
from cirri.cli.output import emit, output, table
from cirri.errors import CirriError
from cirri.model import ANNOUNCERS
from cirri.model.bucket import token

if TYPE_CHECKING:
    from cirri.kv import Bus

REQUEST_S = 2.0
Status = dict[str, Any]


class NobodyAnswers(CirriError):
    """No node's service ``l2`` can be asked."""

    hint = "See `cirri status`: service l2 has to run on the nodes"

    def __init__(self) -> None:
        super().__init__("no node tells who holds addresses")


def _address(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """*value*, in its shortest form."""
    try:
        return str(ip_address(value.strip("[]")))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no IP address", ctx, param) from None


_ip = click.argument("ip", callback=_address)
_node = click.argument("node")


@click.group()
def l2() -> None:
    """Show and move addresses that nodes announce on their segment, by ARP and neighbour discovery."""


@l2.command("list")
@output
@click.pass_obj
def list_(target: Target, *, form: str | None) -> None:
    """List each address that policies want announced, and the node that holds it."""
    statuses = with_bus(target, _statuses)
    found = rows(statuses)
    if form:
        emit({"addresses": found, "nodes": [_brief(each) for each in statuses]}, form)
        return
    head = ("ADDRESS", "SERVICE", "NODE", "DEVICE", "ANSWERS", "REASON")
    click.echo(
        table(
            head,
            [
                (
                    row["address"],
                    ",".join(row["services"]),
                    row["node"] or "-",
                    ",".join(row["devices"]),
                    str(row["answers"]),
                    row["reason"],
                )
                for row in found
            ],
        )
    )
    for each in statuses:
        for sentence in _remarks(each):
            click.echo(f"{each['node']}: {sentence}", err=True)


@l2.command()
@_ip
@output
@click.pass_obj
def explain(target: Target, *, ip: str, form: str | None) -> None:
    """Say why the address IP is where it is, and of each node whether it may hold it."""
    found = with_bus(target, _anybody("explain", ip))
    if form:
        emit(found, form)
        return
    if not found.get("services"):
        click.echo(f"{ip} is not announced: {found['reason']}")
        return
    click.echo(f"{ip} of {', '.join(found['services'])}, because of {', '.join(found['policies'])}")
    click.echo(f"held by {found['holder'] or 'nobody'} ({found['reason']}); in the order of hashing:\n")
    cells = [
        (
            row["node"],
            str(row["weight"]),
            ",".join(row["devices"]),
            "holds it" if row["node"] == found["holder"] else row["why"] or "may hold it",
        )
        for row in found["nodes"]
    ]
    click.echo(table(("NODE", "WEIGHT", "DEVICES", "SAYS"), cells))


@l2.command()
@_ip
@_node
@click.pass_obj
def move(target: Target, *, ip: str, node: str) -> None:
    """Have NODE hold the address IP while it can; `cirri l2 release IP` undoes it."""
    with_bus(target, _ask(node, "move", ip))
    click.echo(f"{ip} moves to {node}")


@l2.command()
@_ip
@click.pass_obj
def release(target: Target, *, ip: str) -> None:
    """Have the address IP be held by the node that hashing chooses."""

    async def everywhere(bus: Bus) -> int:
        claiming = [each.value.node for each in await bus.entries(ANNOUNCERS) if ip in each.value.claims]
        for node in claiming:
            await _request(bus, node, "release", ip)
        return len(claiming)

    click.echo(f"{ip} is free" if with_bus(target, everywhere) else f"nobody had moved {ip}")


@l2.command()
@_node
@click.pass_obj
def drain(target: Target, *, node: str) -> None:
    """Have NODE hold nothing that another node may hold; `cirri l2 undrain NODE` undoes it."""
    with_bus(target, _ask(node, "drain"))
    click.echo(f"{node} is drained")


@l2.command()
@_node
@click.pass_obj
def undrain(target: Target, *, node: str) -> None:
    """Have NODE hold its share of addresses again."""
    with_bus(target, _ask(node, "undrain"))
    click.echo(f"{node} holds its share again")


def rows(statuses: Sequence[Status]) -> list[dict[str, Any]]:
    """A row for each address: as those nodes have it that see who lives, with its holder's counts."""
    by_node = {each["node"]: each for each in statuses}
    places: dict[str, Mapping[str, Any]] = {}
    for status in sorted(statuses, key=lambda each: (each["beating"], not each["blind"])):
        places |= status["places"]
    found = []
    for address, place in sorted(places.items(), key=lambda pair: _order(pair[0])):
        entry = by_node.get(place["node"], {}).get("held", {}).get(address, {})
        counts = {name: entry.get(name, 0) for name in ("answers", "rivals")}
        found.append({"address": address, **place, **counts})
    return found


def _order(address: str) -> tuple[int, int]:
    parsed = ip_address(address)
    return parsed.version, int(parsed)


def _remarks(status: Status) -> list[str]:
    found = []
    if status["drained"]:
        found.append("drained")
    if status["blind"]:
        found.append("does not see who lives: keeps what it holds, and takes nothing")
    elif not status["beating"]:
        found.append(f"takes no part: {status['idle'] or 'it listens who is there'}")
    return found


def _brief(status: Status) -> Status:
    kept = ("node", "device", "beating", "blind", "drained", "idle", "alive", "announcements", "taken")
    return {key: status[key] for key in kept} | {"held": len(status["held"])}


async def _statuses(bus: Bus) -> list[Status]:
    """Of each node that answers, by name."""

    async def one(node: str) -> Status | None:
        try:
            return json.decode(await _request(bus, node, "status"), type=Status)
        except CirriError:
            return None

    nodes = sorted(each.value.node for each in await bus.entries(ANNOUNCERS))
    found = [status for status in await asyncio.gather(*map(one, nodes)) if status is not None]
    if not found:
        raise NobodyAnswers
    return found


def _anybody(name: str, ip: str) -> Callable[[Bus], Awaitable[dict[str, Any]]]:
    """Ask a node that takes part, if there is one."""

    async def ask(bus: Bus) -> dict[str, Any]:
        best = max(await _statuses(bus), key=lambda each: (each["beating"], not each["blind"]))
        return json.decode(await _request(bus, best["node"], name, ip), type=dict[str, Any])

    return ask


def _ask(node: str, name: str, ip: str = "") -> Callable[[Bus], Awaitable[bytes]]:
    async def ask(bus: Bus) -> bytes:
        await require_node(bus, node)
        return await _request(bus, node, name, ip)

    return ask


async def _request(bus: Bus, node: str, name: str, ip: str = "") -> bytes:
    return await bus.request(f"cirri.l2.{token(node)}.{name}", ip.encode(), REQUEST_S)
