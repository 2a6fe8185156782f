"""``cirri policy matrix``: who may reach whom, from manifests alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import click

from cirri.cli.output import emit, output, some, table

if TYPE_CHECKING:
    from cirri.whatif.matrix import Half, Row
    from cirri.whatif.port import Port

WIDEST = 20
"""Parties that a grid can show; more are listed."""
SAME, NOBODY = "=", "."
"""Cells for what a pod sends to itself, and for two of whom neither is under policy."""

files_option = click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    required=True,
    metavar="FILE...",
    help="A file, a folder (searched through for *.yaml, *.yml, *.json) or - for standard input; several, "
    "as a shell writes out -f *.yaml, too; repeatable.",
)


def _ports(_: click.Context, __: click.Parameter, texts: Sequence[str]) -> list[Port]:
    from cirri.whatif.port import InvalidPort, Port

    try:
        return list(dict.fromkeys(map(Port.parse, texts)))
    except InvalidPort as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@files_option
@click.argument("more_files", nargs=-1, metavar="")
@click.option(
    "--port",
    "ports",
    multiple=True,
    required=True,
    metavar="PORT[/PROTOCOL]",
    callback=_ports,
    help="80/TCP, 53/UDP, 9/SCTP; an ICMP type: 8/ICMP, 128/ICMPv6; repeatable.",
)
@click.option(
    "--by-direction", is_flag=True, help="What each side says by itself, with the cause and the rule."
)
@click.option(
    "--endpoints",
    "endpoint_files",
    multiple=True,
    metavar="FILE",
    help="More endpoints and peers, by labels; see above; repeatable.",
)
@click.option(
    "--enforcement-mode",
    "mode",
    type=click.Choice(["default", "always", "never"]),
    help="Who is isolated: key enable-policy of the configuration.",
)
@click.option(
    "--host-firewall", is_flag=True, help="Nodes are under policy, as key enable-host-firewall says."
)
@output
def matrix(
    files: Sequence[str],
    more_files: Sequence[str],
    ports: Sequence[Port],
    *,
    by_direction: bool,
    endpoint_files: Sequence[str],
    mode: str | None,
    host_firewall: bool,
    form: str | None,
) -> None:
    """Show who may reach whom under the policies of some manifests.

    No cluster is asked: the manifests are compiled by the engine that feeds the kernel.  Rows are Pods
    and what makes pods (Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob), as NAMESPACE/NAME.
    A connection needs the leave of both sides; one that a proxy would look into counts as allowed.  A pod
    always reaches itself; the row of a Deployment to itself speaks of two of its pods.  Nodes of the
    manifests have rows (node:NAME) where the host firewall is on.  Keys of the configuration come from a
    ConfigMap cirri-config among the manifests.

    \b
    --endpoints adds rows.  Its file is a list, YAML or JSON:
      - {name: shop/cart, labels: [k8s:app=cart], ports: {tcp/http: 8080}}
      - {name: here, labels: [reserved:host]}             the node of whoever is asked
      - {name: there, labels: [reserved:remote-node]}
      - {name: partner, ip: 203.0.113.5}                  an address outside the cluster
      - {name: site, labels: ["fqdn:*.example.com"]}      one that toFQDNs with this pattern learnt
      - {name: far, labels: [k8s:io.cilium.k8s.policy.cluster=other, k8s:app=web]}
    An entry without reserved labels is a pod; labels that every pod has and it does not name are added
    (its namespace is that of its name, or default; labels: [] is a pod without labels of its own).
    reserved:world without ip is an IPv4 address that no policy names.  Pods of this cluster,
    reserved:health, init and ingress are under policy themselves, reserved:host with --host-firewall;
    the others are peers only.
    """
    from cirri.whatif.endpoints import entries, party, without_source
    from cirri.whatif.load import load
    from cirri.whatif.matrix import halves, rows
    from cirri.whatif.world import Contradiction

    config = {"enable-policy": mode} if mode else {}
    config |= {"enable-host-firewall": "true"} if host_firewall else {}
    listed = entries(endpoint_files)
    world, _, warnings = load(
        (*files, *more_files),
        config,
        lambda _, setting: [party(one, setting) for one in listed],
        isolated=True,
    )
    for warning in (*without_source(listed), *warnings):
        click.echo(f"Warning: {warning}", err=True)
    # Nodes that only the manifests name would be told apart by nobody.
    who = [one for one in world.parties.values() if one.remote is None or world.has_policy(one)]
    if not who:
        click.echo("Warning: the manifests make no pods, so there is nobody to ask about", err=True)
    if by_direction:
        sides = list(halves(world, who, ports))
        emit(sides, form) if form else click.echo(_sides(sides))
    else:
        found = list(rows(world, who, ports))
        show = _grids if len(who) <= WIDEST else _lists
        emit(found, form) if form else click.echo(show(found, [one.name for one in who]))
    if world.contradictions:
        raise Contradiction(world.contradictions)


def _sides(sides: Iterable[Half]) -> str:
    header = ("SUBJECT", "DIRECTION", "PEER", "PORT", "VERDICT", "CAUSE", "REDIRECT", "RULE")
    lines = (
        (h.subject, h.direction, h.peer, f"{h.port}/{h.protocol}", h.verdict, h.cause, h.redirect, h.rule)
        for h in sides
    )
    return table(header, list(lines))


def _grids(rows: Iterable[Row], names: Sequence[str]) -> str:
    """For each port one line for each source, one column for each destination, and why not."""
    numbers = {name: str(number) for number, name in enumerate(names, start=1)}
    parts = []
    for title, group in groupby(rows, key=lambda row: f"{row.port}/{row.protocol}"):
        asked = list(group)
        cells = {(row.source, row.target): _cell(row) for row in asked}
        lines = [(f"{numbers[a]} {a}", *(cells[a, b] for b in names)) for a in names]
        parts.append(table((f"{title}, FROM", *(f"TO {numbers[name]}" for name in names)), lines))
        why: dict[str, list[str]] = {}
        for row in asked:
            if row.verdict == "deny":
                why.setdefault(row.reason, []).append(f"{numbers[row.source]}>{numbers[row.target]}")
        parts += [f"{some(pairs)}: {reason}" for reason, pairs in why.items()]
        parts.append("")
    return "\n".join(parts).rstrip()


def _lists(rows: Iterable[Row], names: Sequence[str]) -> str:
    """For each port one line for each destination: who may reach it and who may not."""
    parts = []
    for title, group in groupby(rows, key=lambda row: f"{row.port}/{row.protocol}"):
        sources: dict[tuple[str, str], list[str]] = {}
        for row in group:
            sources.setdefault((row.target, _cell(row)), []).append(row.source)
        lines = [
            (name, *(some(sources.get((name, answer), ()), 4) for answer in ("allow", "deny")))
            for name in names
        ]
        parts += [table((f"{title}, TO", "ALLOWED FROM", "DENIED FROM"), lines), ""]
    return "\n".join(parts).rstrip()


def _cell(row: Row) -> str:
    from cirri.whatif.matrix import TO_ITSELF, UNASKED

    return SAME if row.reason == TO_ITSELF else NOBODY if row.reason == UNASKED else row.verdict
