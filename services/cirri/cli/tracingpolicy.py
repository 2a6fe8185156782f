"""``cirri tracingpolicy``: which tracing policies each node serves, by which hooks, and why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cirri.cli.bus import each_node, with_bus
from cirri.cli.context import Target
from cirri.cli.output import emit, table

if TYPE_CHECKING:
    from cirri.kv import Bus
    from cirri.model.runtimeevents import PolicyState


@click.group()
def tracingpolicy() -> None:
    """Show tracing policies as the nodes serve them."""


@tracingpolicy.command("list")
@click.option("--node", metavar="NODE", help="Only this node.  [default: every node]")
@click.option("-o", "--output", "form", type=click.Choice(["json", "yaml"]))
@click.pass_obj
def listing(target: Target, *, node: str | None, form: str | None) -> None:
    """Each policy on each node: enabled, or which field cannot be served and what this kernel offers."""
    import msgspec

    from cirri.model.runtimeevents import PolicyStates
    from cirri.runtime.runtime import request_subject

    async def work(bus: Bus) -> list[tuple[str, tuple[PolicyState, ...]]]:
        async def ask(at: str) -> tuple[PolicyState, ...]:
            answer = await bus.request(request_subject("sensor", "policies", at), b"", 5.0)
            return msgspec.msgpack.decode(answer, type=PolicyStates).policies

        return await each_node(bus, node, ask)

    found = with_bus(target, work)
    rows = [(at, state) for at, states in found for state in states]
    if form:
        emit([{"node": at, **msgspec.to_builtins(state)} for at, state in rows], form)
        return
    cells = [
        [
            at,
            state.name,
            state.state,
            state.why or "; ".join(f"{k} at {v}" for k, v in sorted(state.hooks.items())),
        ]
        for at, state in rows
    ]
    click.echo(table(("NODE", "NAME", "STATE", "HOOKS, OR WHY NOT"), cells))


def _hooks(state: PolicyState) -> str:
    return "; ".join(f"{name} at {hook}" for name, hook in sorted(state.hooks.items())) or "-"
