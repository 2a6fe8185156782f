"""A connection for the length of one command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from cirri.cli.context import Context, NoNode, Target, enter
from cirri.errors import CirriError
from cirri.model import NODES, RESOURCES, resource_key

if TYPE_CHECKING:
    from cirri.kv import Bus

T = TypeVar("T")
LAB_PLAN = "plan.json"
"""In a lab's run directory: what its supervisor runs."""


CONNECT_S = 5.0
"""How long the bus may take to answer first."""


def with_bus(target: Target, work: Callable[[Bus], Awaitable[T]], *, within_s: float = 0) -> T:
    """The result of *work* on a connection to *target*, made *within_s* (:data:`CONNECT_S` if 0).

    Raises what *work* raises: a :class:`CirriError`.
    """
    context = target.context()
    enter(context.netns)

    async def run() -> T:
        from cirri.kv import Bus, BusUnavailable

        try:
            bus = await Bus.connect(
                context.nats_url,
                user=context.user,
                password=context.password,
                name="cirri-cli",
                timeout_s=within_s or CONNECT_S,
            )
        except BusUnavailable as error:
            error.hint = _what_to_do(context) or error.hint
            raise
        try:
            return await work(bus)
        finally:
            await bus.drain()

    return asyncio.run(run())


async def require_node(bus: Bus, node: str | None) -> None:
    """Raise :class:`NoNode` unless the cluster has *node*; None is fine."""
    if node is None:
        return
    known = {entry.value.node for entry in await bus.entries(NODES)}
    known |= {entry.value.name for entry in await bus.entries(RESOURCES, resource_key("Node", "*", "*", "*"))}
    if node not in known:
        raise NoNode(node, sorted(known))


async def each_node(
    bus: Bus,
    node: str | None,
    ask: Callable[[str], Awaitable[T]],
    *,
    raises: type[CirriError] | tuple[type[CirriError], ...] = (),
) -> list[tuple[str, T]]:
    """What *ask* says of *node*, or of every one; of those, nodes that do not answer are named on stderr.

    Raises: NoNode, errors about a single *node*, those of *raises*.
    """
    await require_node(bus, node)
    nodes = [node] if node else sorted({entry.value.node for entry in await bus.entries(NODES)})
    found = []
    for at in nodes:
        try:
            found.append((at, await ask(at)))
        except CirriError as error:
            if node or isinstance(error, raises):
                raise
            click.echo(f"node {at}: {error}", err=True)
    return found


def _what_to_do(context: Context) -> str:
    """The next step when the bus of a lab is away; "" if it is no lab."""
    if not context.run_dir or not (Path(context.run_dir) / LAB_PLAN).exists():
        return ""
    name = f" --name {context.name}"
    return f"`cirri lab status{name}` shows what runs, `cirri lab resume{name}` starts it again"
