"""``cirri service``: what the nodes' kernels do for Services, with the names that the cluster has for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from cirri.cli import lbrecords as s
from cirri.cli.bpf import lb_maps
from cirri.cli.bus import with_bus
from cirri.cli.context import Target
from cirri.cli.output import emit, output, some, table
from cirri.cli.pins import Node, from_each, nodes
from cirri.cli.records import Record
from cirri.errors import CirriError
from cirri.loadbalancer import (
    Frontend,
    Here,
    InvalidConfig,
    LoadBalancerConfig,
    Serving,
    frontends,
    host_ports,
    service_of,
)
from cirri.model import NODES, RESOURCES, NodeStatus, Resource, resource_key
from cirri.model.config import CONFIG, config_data

if TYPE_CHECKING:
    from cirri.kv import Bus

BUS_S = 3.0
"""How long a bus may take that could as well be missing."""

_node = click.option("--node", metavar="NODE", help="Only this node.  [default: every node of the cluster]")


class NoFrontend(CirriError):
    """No node has a frontend of that number."""

    hint = "`cirri service list` shows all"

    def __init__(self, number: int, where: Sequence[str]) -> None:
        self.number, self.where = number, tuple(where)
        super().__init__(f"no frontend {number} on {some(self.where)}")


@click.group()
def service() -> None:
    """Show Services as the nodes' kernels serve them: frontends, backends and their states."""


@service.command("list")
@_node
@output
@click.pass_obj
def list_(target: Target, *, node: str | None, form: str | None) -> None:
    """List frontends with their backends, from the kernel's maps.

    IDs are unique on a node only, and stay as long as the frontend is there.  With /i stands the entry
    for clients in the cluster, where those from outside have another.  Types and names come from the bus;
    without it they are left out.
    """
    found, failed = _read(target, nodes(target, node))
    if form:
        emit(found, form)
    else:
        click.echo(listing(found))
    if failed:
        raise click.exceptions.Exit(1)


@service.command("get")
@click.argument("number", type=int, metavar="ID")
@_node
@output
@click.pass_obj
def get(target: Target, number: int, *, node: str | None, form: str | None) -> None:
    """Show one frontend: its Service, session affinity, source ranges, backends.

    IDs are unique on a node only: without --node, the frontend of that ID on each node is shown.
    """
    chosen = nodes(target, node)
    every, failed = _read(target, chosen)
    found = [record for record in every if record["id"] == number]
    if not found:
        raise NoFrontend(number, [each.name for each in chosen])
    if form:
        emit(found, form)
    else:
        texts = [f"{'Node:':18}{record['node']}\n{s.service_text(record)}" for record in found]
        click.echo("\n\n".join(texts))
    if failed:
        raise click.exceptions.Exit(1)


def listing(found: Sequence[Record]) -> str:
    """A table for each node, under its name if there are several."""
    names = list(dict.fromkeys(record["node"] for record in found))
    if not names:
        return "No Services."
    parts = []
    for name in names:
        rows = [s.service_row(record) for record in found if record["node"] == name]
        head = f"Node: {name}\n" if len(names) > 1 else ""
        parts.append(head + table(s.SERVICE_HEADER, rows))
    return "\n\n".join(parts)


def _read(target: Target, chosen: Sequence[Node]) -> tuple[list[Record], int]:
    """Records of all frontends of *chosen*, and how many of these could not be read."""
    known = _ask(target, [each.name for each in chosen])

    def read(on: Node) -> list[Record]:
        return [{"node": on.name, **each} for each in s.service_records(lb_maps(on), known.get(on.name, {}))]

    return from_each(chosen, read)


def _ask(target: Target, names: Sequence[str]) -> dict[str, dict[Frontend, Serving]]:
    """What the bus says about the frontends of each node; nothing if it is away, which stderr is told."""

    async def read(bus: Bus) -> dict[str, dict[Frontend, Serving]]:
        patterns = (
            ("services", resource_key("Service", "*")),
            ("slices", resource_key("EndpointSlice", "*")),
            ("nodes", resource_key("Node", "*")),
            *(("pods", resource_key("Pod", "*", "*", name)) for name in names),
            ("config", CONFIG),
        )
        statuses = await bus.entries(NODES)
        found = await asyncio.gather(*(bus.entries(RESOURCES, pattern) for _, pattern in patterns))
        objects: dict[str, list[Resource]] = {}
        for (kind, _), entries in zip(patterns, found, strict=True):
            objects.setdefault(kind, []).extend(entry.value for entry in entries)
        return {name: meant_for(name, objects, [each.value for each in statuses]) for name in names}

    try:
        return with_bus(target, read, within_s=BUS_S)
    except CirriError as error:
        click.echo(f"Types and names of Services are not known: {error}", err=True)
        return {}


def meant_for(
    node: str, objects: Mapping[str, Sequence[Resource]], statuses: Sequence[NodeStatus]
) -> dict[Frontend, Serving]:
    """What *node* is to serve, by the same reckoning as its own; what cannot be understood is left out.

    *objects*: ``services``, ``slices``, ``nodes``, ``pods``, ``config``.
    """
    try:
        config = LoadBalancerConfig.of(config_data({str(i): one for i, one in enumerate(objects["config"])}))
    except InvalidConfig:
        config = LoadBalancerConfig()
    here = Here.of(node, next((one for one in objects["nodes"] if one.name == node), None), statuses)
    slices: dict[tuple[str, str], list[Resource]] = {}
    for part in objects["slices"]:
        slices.setdefault(service_of(part), []).append(part)
    found = host_ports((pod for pod in objects["pods"] if pod.node == node), here)
    for one in sorted(objects["services"], key=lambda each: (each.namespace, each.name)):
        try:
            expanded = frontends(one, slices.get((one.namespace, one.name), ()), here, config)
        except (LookupError, TypeError, ValueError, AttributeError):
            continue  # the node says in `cirri status` that it cannot be understood
        for frontend, serving in expanded.items():
            found.setdefault(frontend, serving)
    return found
