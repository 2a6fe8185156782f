"""``cirri health``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from cirri.cli.bus import with_bus
from cirri.cli.context import Target
from cirri.cli.output import emit, output, table
from cirri.cli.reach import PROBES, ClusterHealth, cluster_health, rtt_text, stale
from cirri.errors import CirriError
from cirri.model import HEALTH, RESOURCES, NodeHealth, resource_key

if TYPE_CHECKING:
    from cirri.kv import Bus

WHAT = {"icmp": "ICMP to stack:", "http": "HTTP to agent:"}
"""As ``cilium-health status`` names the probes."""


class NotReached(CirriError):
    """Nodes do not reach each other; what was printed says which."""

    def __init__(self, problems: int) -> None:
        self.problems = problems
        super().__init__(f"{problems} problem{'s' if problems != 1 else ''}, see above")


class Found(Struct, frozen=True, kw_only=True):
    """What ``-o json`` prints."""

    summary: str
    cluster: ClusterHealth
    views: tuple[NodeHealth, ...]
    """What each node sees, as it told it last."""


@click.group()
def health() -> None:
    """Show which nodes reach each other, by ICMP and HTTP."""


@health.command()
@click.option("--succinct", is_flag=True, help="Only how many are reachable, and who cannot reach whom.")
@click.option("--verbose", is_flag=True, help="What every node sees of every other one.")
@output
@click.pass_obj
def status(target: Target, *, succinct: bool, verbose: bool, form: str | None) -> None:
    """Show which nodes reach each other, since when, and how long it takes.

    Exits with 1 if some do not.
    """

    async def read(bus: Bus) -> Found:
        from cirri.kv import BucketMissing

        try:
            views = [entry.value for entry in await bus.entries(HEALTH)]
        except BucketMissing:
            views = []
        names = [e.value.name for e in await bus.entries(RESOURCES, resource_key("Node", "", "*", "*"))]
        views = sorted((view for view in views if view.node in names), key=lambda view: view.node)
        found = cluster_health(names, views, datetime.now(UTC))
        return Found(summary=found.summary, cluster=found, views=tuple(views))

    found = with_bus(target, read)
    if form:
        emit(found, form)
    else:
        click.echo(text(found, succinct=succinct, verbose=verbose, now=datetime.now(UTC)))
    if found.cluster.problems:
        raise NotReached(len(found.cluster.problems))


def text(found: Found, *, succinct: bool, verbose: bool, now: datetime) -> str:
    """The report for people."""
    lines = [f"Cluster health:   {found.summary}"]
    if not succinct:
        lines += ["", _nodes(found)]
    if verbose:
        lines += [line for view in found.views for line in ("", *_view(view, now))]
    if problems := found.cluster.problems:
        lines += ["", *problems]
    return "\n".join(lines)


def _nodes(found: Found) -> str:
    """Each address of each node, with the slowest way to it."""
    rows = []
    for node in found.cluster.nodes:
        for i, address in enumerate(node.addresses or ("<none>",)):
            head = (
                (node.name, node.state, f"{len(node.reached_from)}/{node.viewers}") if i == 0 else ("",) * 3
            )
            rows.append((*head, address, *(_slowest(found.views, node.name, address, p) for p in PROBES)))
    return table(("NODE", "STATE", "FROM", "ADDRESS", "ICMP (max)", "HTTP (max)"), rows)


def _slowest(views: Sequence[NodeHealth], node: str, address: str, probe: str) -> str:
    paths = [
        path
        for view in views
        for peer in view.peers
        for path in peer.paths
        if (peer.node, path.address, path.probe) == (node, address, probe)
    ]
    lost = [path for path in paths if path.state == "unreachable"]
    if lost:
        return f"lost from {len(lost)}"
    times = [path.rtt_s for path in paths if path.state == "reachable"]
    return f"{max(times) * 1e3:.2f}ms" if times else "-"


def _view(view: NodeHealth, now: datetime) -> list[str]:
    """As ``cilium-health status`` prints what one node sees."""
    probed = f"{view.probed}{', not heard of since' if stale(view, now) else ''}" if view.probed else "never"
    lines = [f"From {view.node}:", f"  Probe time:   {probed} (every {view.interval_s:g} s)"]
    for peer in view.peers:
        lines.append(f"  {peer.node}:")
        for address in dict.fromkeys(path.address for path in peer.paths):
            lines.append(f"    Host connectivity to {address}:")
            lines += [f"      {WHAT[p.probe]}   {rtt_text(p)}" for p in peer.paths if p.address == address]
    return lines
