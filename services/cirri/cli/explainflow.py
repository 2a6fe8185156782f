"""``cirri policy explain FLOW-UUID``: what was decided about a flow, and what policies say of it now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import click

from cirri.cli.bus import with_bus
from cirri.cli.context import Target
from cirri.cli.flowhistory import tables
from cirri.cli.flows import rule_text

if TYPE_CHECKING:
    from cirri.history.replay import Asked
    from cirri.history.why import Flow
    from cirri.kv import Bus
    from cirri.model import Resource
    from cirri.whatif.explain import Report


class Found(NamedTuple):
    """A flow and what it depended on."""

    flow: Flow
    asked: Asked
    resources: list[Resource]


def uuid_of(text: str) -> UUID:
    """The UUID that *text* is."""
    try:
        return UUID(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not the UUID of a flow", param_hint="FLOW-UUID") from None


def find(target: Target, uuid: UUID) -> Found:
    """The flow *uuid*, from the stored ones.  Raises NoFlow."""

    async def work(bus: Bus) -> Found:
        from cirri.history.questions import Scope
        from cirri.history.replay import asked
        from cirri.history.seen import Seen
        from cirri.history.why import NoFlow, flow, row_of
        from cirri.model import RESOURCES

        async for each in tables(bus, Scope(), newest_first=True, losses=False):
            if (index := row_of(each, uuid)) is not None:
                resources = [entry.value for entry in await bus.entries(RESOURCES)]
                seen = Seen(each)
                return Found(flow(seen, index), asked(seen, index), resources)
        raise NoFlow(uuid)

    return with_bus(target, work)


def report(found: Found) -> Report:
    """What policies say now about such a flow."""
    from cirri.history.why import explanations
    from cirri.whatif.explain import Report

    flow = found.flow
    told = explanations({"": found.asked}, {"": (flow.client, flow.server)}, found.resources)[""]
    return Report(
        source=flow.client, target=flow.server, port=told.port, verdict=told.verdict, destinations=(told,)
    )


def lines(flow: Flow) -> Iterator[str]:
    """What was seen, for people."""
    from cirri.cli.flowlines import safe

    request = f", {safe(flow.request)}" if flow.request else ""
    yield f"Flow {flow.uuid} of {flow.time} on {flow.node}"
    direction = f" {flow.direction}" if flow.direction else ""
    reason = f" ({flow.reason})" if flow.reason else ""
    yield f"  {safe(flow.client)} -> {safe(flow.server)} {flow.port}/{flow.protocol}{request}"
    yield f"  {flow.type}{direction}: {flow.verdict.upper()}{reason}"
    if flow.rule is not None:
        yield f"  by {rule_text(flow.rule)}"
    yield ""
    yield "Policies say now:"
