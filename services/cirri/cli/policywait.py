"""``cirri policy wait``: is it in force, and where not?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import click
from msgspec import Struct

from cirri.cli.bus import with_bus
from cirri.cli.context import Target
from cirri.cli.get import NotFound
from cirri.cli.output import emit, output
from cirri.cli.waiting import POLL_S, Goal, behind
from cirri.errors import CirriError
from cirri.manifests import POLICY_KINDS
from cirri.model import (
    ACKS,
    ENDPOINTS,
    NODES,
    POLICIES,
    RESOURCES,
    Endpoint,
    Resource,
    SubjectPolicy,
    resource_key,
)

if TYPE_CHECKING:
    from cirri.kv import Bus


class Wanted(NamedTuple):
    """What is waited for."""

    revision: int
    """Of bucket ``resources``."""
    objects: tuple[Resource, ...] = ()
    """The policies named; none: everything up to the revision."""


class Applied(Struct, frozen=True, kw_only=True, rename="camel"):
    """Where it is in force."""

    revision: int
    applied_on: int
    """How many nodes have acknowledged it."""
    nodes: int
    """How many should."""
    behind: dict[str, str] = {}
    """The others, and how far they are; ``policy`` if it is not even compiled."""


class NotApplied(CirriError):
    """Time is up."""

    hint = "It may still come into force: see `cirri status`"

    def __init__(self, applied: Applied, timeout_s: float) -> None:
        self.applied = applied
        who = "; ".join(f"{name}: {how}" for name, how in applied.behind.items())
        super().__init__(f"{text(applied)} after {timeout_s:g} s; {who}")


@click.command()
@click.argument("what", metavar="REVISION | [NAMESPACE/]NAME")
@click.option("--all-nodes", is_flag=True, help="Every node, also those where NAME selects nobody.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0), default=60.0, show_default=True, metavar="SECONDS"
)
@output
@click.pass_obj
def wait(target: Target, what: str, *, all_nodes: bool, timeout_s: float, form: str | None) -> None:
    """Return when a policy, or everything up to a revision, is in force.

    Nodes acknowledge what their kernel has: the answer is exact.  apply -o json shows the revision of
    a change.
    """

    async def work(bus: Bus) -> Applied:
        wanted = await _wanted(bus, what)
        return await _applied(bus, wanted, time.monotonic() + timeout_s, all_nodes=all_nodes)

    found = with_bus(target, work)
    if form:
        emit(found, form)
        if found.behind:
            raise click.exceptions.Exit(1)
    elif found.behind:
        raise NotApplied(found, timeout_s)
    else:
        click.echo(text(found))


async def _wanted(bus: Bus, what: str) -> Wanted:
    if what.isascii() and what.isdigit():
        return Wanted(int(what))
    found = []
    for kind in sorted(POLICY_KINDS):
        found += await bus.entries(RESOURCES, resource_key(kind, "*", "*", "*"))
    found = [e for e in found if what in (e.value.name, f"{e.value.namespace}/{e.value.name}")]
    if not found:
        raise NotFound("policy", what, "")
    return Wanted(max(e.revision for e in found), tuple(e.value for e in found))


async def _applied(bus: Bus, wanted: Wanted, deadline: float, *, all_nodes: bool) -> Applied:
    """Where it is in force: everywhere, or as far as it got until *deadline*."""
    async with (
        bus.table(RESOURCES, resource_key("Node", "", "*", "*")) as nodes,
        bus.table(POLICIES) as policies,
        bus.table(ENDPOINTS) as endpoints,
        bus.table(NODES) as statuses,
        bus.table(ACKS) as acks,
    ):
        while True:
            compiled = max((e.compiled.resources for e in policies.values() if e.compiled), default=0)
            names = {node.name for node in nodes.values()}
            known = nodes.ready.is_set() and policies.ready.is_set()
            if wanted.objects and not all_nodes:
                known = known and endpoints.ready.is_set()
                subjects = [e.subject for e in policies.values() if e.subject is not None]
                names &= concerned(wanted.objects, subjects, endpoints.values(), names)
            late: Mapping[str, str] = {"bus": "not everything could be read yet"}
            if known:
                late = behind(
                    Goal(policy=wanted.revision),
                    names,
                    {status.node: status for status in statuses.values()},
                    {ack.node: ack for ack in acks.values()},
                )
                if compiled < wanted.revision:
                    late = {"policy": f"compiled up to {compiled} of {wanted.revision}", **late}
            if not late or time.monotonic() >= deadline:
                there = sum(1 for name in names if name not in late) if known else 0
                return Applied(
                    revision=wanted.revision, applied_on=there, nodes=len(names), behind=dict(late)
                )
            await asyncio.sleep(POLL_S)


def concerned(
    objects: Sequence[Resource],
    policies: Iterable[SubjectPolicy],
    endpoints: Iterable[Endpoint],
    nodes: Iterable[str],
) -> set[str]:
    """Those of *nodes* that have an endpoint which one of *objects* selects; all if one selects nodes."""
    if any("nodeSelector" in spec for each in objects for spec in _specs(each)):
        return set(nodes)
    names = {(each.kind, each.namespace, each.name) for each in objects}
    identities = {
        policy.identity
        for policy in policies
        if any((origin.kind, origin.namespace, origin.name) in names for origin in policy.origins)
    }
    return {endpoint.node for endpoint in endpoints if endpoint.identity in identities} & set(nodes)


def _specs(policy: Resource) -> list[Mapping[str, object]]:
    return [policy.manifest.get("spec") or {}, *(policy.manifest.get("specs") or ())]


def text(applied: Applied) -> str:
    """``appliedOn: 2/2 nodes (revision 12)``."""
    if not applied.nodes and not applied.behind:
        return f"appliedOn: 0/0 nodes: no endpoint is concerned (revision {applied.revision})"
    return f"appliedOn: {applied.applied_on}/{applied.nodes} nodes (revision {applied.revision})"
