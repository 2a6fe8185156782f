"""``cirri bpf``: the kernel's maps as they are, without asking any service."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import click

from cirri.cli import lbrecords as s
from cirri.cli import records as r
from cirri.cli.context import Target
from cirri.cli.endpoint import NoEndpoint
from cirri.cli.output import Cell, emit, output, table
from cirri.cli.pins import Node, from_each, kernel, nodes
from cirri.cli.records import Record
from cirri.layout import (
    CT,
    ENDPOINTS,
    EVENT_COUNTER,
    IPCACHE,
    LB_AFFINITY,
    LB_ALIVE,
    LB_BACKENDS,
    LB_FRONTENDS,
    LB_MAGLEV,
    LB_RANGES,
    LB_SERVICES,
    METRICS,
    NAT,
    POLICY,
    RUNTIME,
)
from cirri.maps import open_per_cpu, open_pinned

Row = Callable[[Record], Sequence[Cell]]
_node = click.option("--node", metavar="NODE", help="Only this node.  [default: every node of the cluster]")

_numeric = click.option("-n", "--numeric", is_flag=True, help="Numbers of identities, no labels.")


@click.group()
def bpf() -> None:
    """Read the kernel's maps directly, with or without services."""


def _listing(name: str, says: str) -> Callable[[Callable[..., None]], click.Command]:
    """A group *name* with the command ``list``: options that all of them share."""

    def make(function: Callable[..., None]) -> click.Command:
        group = click.Group(name, help=says)
        bpf.add_command(group)
        return group.command("list", help=function.__doc__)(_node(output(click.pass_obj(function))))

    return make


def _show(
    target: Target,
    node: str | None,
    form: str | None,
    read: Callable[[Node], list[Record]],
    show: Callable[[list[Record]], str],
    *,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Read *node* or every node, *check*, print, and exit with 1 if one could not be read."""
    chosen = nodes(target, node)
    found, failed = from_each(chosen, lambda n: [{"node": n.name, **record} for record in read(n)])
    check()
    if form:
        emit(found, form)
    else:
        for each in chosen:
            mine = [record for record in found if record["node"] == each.name]
            if len(chosen) > 1 and (mine or not failed):
                click.echo(f"{'' if each is chosen[0] else chr(10)}Node: {each.name}")
            if text := show(mine) if mine or not failed else "":
                click.echo(text)
    if failed:
        raise click.exceptions.Exit(1)


def _tabled(header: Sequence[str], row: Row) -> Callable[[list[Record]], str]:
    return lambda found: table(header, [row(record) for record in found])


@_listing("policy", "Policy entries: which peers endpoints may talk to.")
@_numeric
@click.option("--endpoint", type=int, metavar="ID", help="Only what holds for this endpoint.")
def policy(
    target: Target, *, node: str | None, form: str | None, numeric: bool, endpoint: int | None
) -> None:
    """List policy entries, how often each gave a verdict, and the rule it comes from."""

    known: set[int] = set()

    def read(on: Node) -> list[Record]:
        with open_pinned(on.bpffs, POLICY) as entries, open_pinned(on.bpffs, ENDPOINTS) as endpoints:
            here = endpoints.to_dict()
            found = r.policy_records(entries.items(), here, on.names)
        known.update(value.id for value in here.values())
        return [
            record
            for record in found
            if endpoint in (None, *record["endpoints"], *record["auditedEndpoints"])
        ]

    def check() -> None:
        if endpoint is not None and endpoint not in known:
            raise NoEndpoint(str(endpoint), [str(number) for number in sorted(known)])

    header = tuple("IDENTITY" if numeric and h.startswith("LABELS") else h for h in r.POLICY_HEADER)
    show = _tabled(header, lambda record: r.policy_row(record, numeric=numeric))
    _show(target, node, form, read, show, check=check)


@bpf.group()
def ct() -> None:
    """Connection tracking."""


@ct.command("list")
@click.argument("which", type=click.Choice(["global"]), default="global", metavar="[global]")
@_numeric
@_node
@output
@click.pass_obj
def ct_list(target: Target, *, which: str, node: str | None, form: str | None, numeric: bool) -> None:
    """List connections, those that have expired but were not yet removed too.

    All connections of a node stand in one map, which `global` names.
    """

    def read(on: Node) -> list[Record]:
        with open_pinned(on.bpffs, CT) as entries, open_pinned(on.bpffs, ENDPOINTS) as endpoints:
            local = list(endpoints.keys())
            return r.ct_records(entries.to_dict().items(), local, time.monotonic_ns(), on.names)

    _show(target, node, form, read, lambda found: "\n".join(map(r.ct_line, found)) or "No connections.")


@ct.command("flush")
@click.argument("which", type=click.Choice(["global"]), default="global", metavar="[global]")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_node
@click.pass_obj
def ct_flush(target: Target, *, which: str, yes: bool, node: str | None) -> None:
    """Forget all connections: every packet that comes next is judged as a new connection's first.

    Connections go on where policy allows both directions.  Where it allows only the one that opened
    them, answers are dropped until the opener sends again.
    """
    chosen = nodes(target, node)
    if not yes:
        where = ", ".join(each.name for each in chosen)
        click.echo(
            f"This makes {where} forget all connections.  Answers are dropped until the end that opened a "
            "connection sends again;\nclients outside may see a Service's connection break.",
            err=True,
        )
        click.confirm("Go on?", abort=True, err=True)

    def flush(on: Node) -> list[str]:
        with open_pinned(on.bpffs, CT) as entries:
            return [f"{on.name}: {entries.clear()} connections forgotten"]

    said, failed = from_each(chosen, flush)
    click.echo("\n".join(said))
    if failed:
        raise click.exceptions.Exit(1)


@_listing("nat", "Connections that leave under an address of the node's.")
def nat(target: Target, *, node: str | None, form: str | None) -> None:
    """List translations: masqueraded pods, and clients whose backend runs on another node."""

    def read(on: Node) -> list[Record]:
        with open_pinned(on.bpffs, NAT) as entries:
            return r.nat_records(entries.to_dict().items(), time.monotonic_ns())

    _show(target, node, form, read, lambda found: "\n".join(map(r.nat_line, found)) or "No translations.")


@_listing("ipcache", "Which identity owns which address.")
@_numeric
def ipcache(target: Target, *, node: str | None, form: str | None, numeric: bool) -> None:
    """List address prefixes, their identities, and the next hop to those behind another node."""

    def read(on: Node) -> list[Record]:
        with open_pinned(on.bpffs, IPCACHE) as entries:
            return r.ipcache_records(entries.to_dict().items(), on.names)

    def row(cells: Sequence[Cell]) -> list[Cell]:
        return [cell for at, cell in enumerate(cells) if not numeric or at != r.IPCACHE_LABELS]

    header = [str(cell) for cell in row(r.IPCACHE_HEADER)]
    _show(target, node, form, read, _tabled(header, lambda record: row(r.ipcache_row(record))))


@_listing("tunnel", "Where tunnels to other nodes lead.")
def tunnel(target: Target, *, node: str | None, form: str | None) -> None:
    """List the nodes that tunnels lead to and the pod ranges behind them; none in native mode."""

    def read(on: Node) -> list[Record]:
        with open_pinned(on.bpffs, RUNTIME) as runtime, open_pinned(on.bpffs, IPCACHE) as entries:
            running = runtime.get(0)
            return r.tunnel_records(entries.to_dict().items()) if running and running.tunnel_ifindex else []

    _show(target, node, form, read, _tabled(r.TUNNEL_HEADER, r.tunnel_row))


@_listing("endpoint", "The node's own endpoints, by address.")
@_numeric
def endpoint(target: Target, *, node: str | None, form: str | None, numeric: bool) -> None:
    """List addresses of endpoints and the devices behind them."""

    def read(on: Node) -> list[Record]:
        with open_pinned(on.bpffs, ENDPOINTS) as entries:
            return r.endpoint_records(entries.to_dict().items())

    _show(target, node, form, read, _tabled(r.ENDPOINT_HEADER, r.endpoint_row))


@_listing("metrics", "Packets and bytes by outcome.")
def metrics(target: Target, *, node: str | None, form: str | None) -> None:
    """List outcomes that occurred, drops with their reason."""

    def read(on: Node) -> list[Record]:
        with open_per_cpu(on.bpffs, METRICS) as entries:
            return r.metrics_records(entries.items())

    _show(target, node, form, read, _tabled(r.METRICS_HEADER, r.metrics_row))


@bpf.group()
def lb() -> None:
    """Services, their backends, and what clients were promised."""


@lb.command("list")
@click.option("--frontends", "part", flag_value="frontends", help="Only entries of frontends.")
@click.option("--backends", "part", flag_value="backends", help="Only backends, those that terminate too.")
@click.option("--revnat", "part", flag_value="revnat", help="Under which name answers leave, by ID.")
@click.option("--source-ranges", "part", flag_value="ranges", help="Only ranges of sources.")
@_node
@output
@click.pass_obj
def lb_list(target: Target, *, part: str | None, node: str | None, form: str | None) -> None:
    """List Services and the backends in their slots.

    With /i stands the entry for clients in the cluster, where those from outside have another.
    `cirri service list` adds names and types.
    """
    parts: dict[str | None, tuple[Callable[[s.Maps], list[Record]], Sequence[str], Row]] = {
        None: (lambda maps: s.lb_records(maps.services, maps.backends), s.LB_HEADER, s.lb_row),
        "frontends": (lambda m: s.frontend_records(m.services), s.FRONTEND_HEADER, s.frontend_row),
        "backends": (s.backend_records, s.BACKEND_HEADER, s.backend_row),
        "ranges": (lambda m: s.range_records(m.ranges, m.services), s.RANGE_HEADER, s.range_row),
    }
    if part == "revnat":
        _show(target, node, form, _revnat, _tabled(s.REVNAT_HEADER, s.revnat_row))
        return
    records, header, row = parts[part]
    _show(target, node, form, lambda on: records(lb_maps(on)), _tabled(header, row))


def lb_maps(on: Node) -> s.Maps:
    """The maps of Services of a node."""
    with (
        open_pinned(on.bpffs, LB_SERVICES) as services,
        open_pinned(on.bpffs, LB_BACKENDS) as backends,
        open_pinned(on.bpffs, LB_ALIVE) as alive,
        open_pinned(on.bpffs, LB_RANGES) as ranges,
    ):
        return s.Maps(services.to_dict(), backends.to_dict(), alive.to_dict(), list(ranges.to_dict()))


def _revnat(on: Node) -> list[Record]:
    with open_pinned(on.bpffs, LB_FRONTENDS) as frontends:
        return s.revnat_records(frontends.to_dict())


@lb.group()
def maglev() -> None:
    """Tables that tell a connection's backend."""


@maglev.command("list")
@_node
@output
@click.pass_obj
def maglev_list(target: Target, *, node: str | None, form: str | None) -> None:
    """List Services with a table, and how many of its slots each backend has.

    Tables of the same content are one, which several frontends name.  A random choice with weights has
    a table too.
    """

    def read(on: Node) -> list[Record]:
        with open_pinned(on.bpffs, LB_MAGLEV) as parts:
            return s.maglev_records(lb_maps(on), parts.to_dict())

    _show(target, node, form, read, _tabled(s.MAGLEV_HEADER, s.maglev_row))


@_listing("affinity", "Clients that keep their backend.")
def affinity(target: Target, *, node: str | None, form: str | None) -> None:
    """List clients of Services with session affinity and the backend that each keeps.

    A socket has no address yet when it connects: there the network namespace stands for the client.
    """

    def read(on: Node) -> list[Record]:
        with open_pinned(on.bpffs, LB_SERVICES) as services, open_pinned(on.bpffs, LB_AFFINITY) as entries:
            now = time.monotonic_ns()
            return s.affinity_records(entries.to_dict().items(), services.to_dict(), now)

    _show(target, node, form, read, _tabled(s.AFFINITY_HEADER, s.affinity_row))


@_listing("events", "The event ring buffer.")
def events(target: Target, *, node: str | None, form: str | None) -> None:
    """Show how many events were handed to observers, and how many were lost because the ring was full.

    What a lost event was to tell waits for the connection's next one, or is forgone, in packets and bytes.
    """

    def read(on: Node) -> list[Record]:
        with open_per_cpu(on.bpffs, EVENT_COUNTER) as counters:
            return [r.events_record(counters.to_dict())]

    def row(record: dict[str, Any]) -> list[Cell]:
        return [str(record[name]) for name in ("submitted", "lost", "forgonePackets", "forgoneBytes")]

    _show(target, node, form, read, _tabled(r.EVENTS_HEADER, row))


@bpf.command()
@_node
@output
@click.pass_obj
def features(target: Target, *, node: str | None, form: str | None) -> None:
    """Show what each node's kernel has, since which Linux, and what it is used for.

    It is what the datapath service found when it started; what is needed and missing keeps it from starting.
    """

    def show(found: list[Record]) -> str:
        return "\n".join(map(r.features_text, found))

    _show(target, node, form, lambda on: [kernel(on)], show)
