"""``cirri events``: which programs ran, in which pods, and how they ended."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from cirri.cli.bus import with_bus
from cirri.cli.context import Target
from cirri.model.runtimeevents import EVENT_TYPES

if TYPE_CHECKING:
    from cirri.kv import Bus
    from cirri.model.runtimeevents import Process, RuntimeBatch, RuntimeEvent

CAUSES = {"ring": "the kernel's ring buffer was full", "stream": "they could not be stored"}
Wanted = Callable[["RuntimeEvent", "Process"], bool]


@click.command()
@click.option(
    "-o", "--output", "form", type=click.Choice(["compact", "json"]), default="compact", show_default=True
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on.")
@click.option(
    "--since",
    metavar="TIME",
    help="From when on: back from now (90s, 5m, 24h), or a date.  [default: 5m; now with -f]",
)
@click.option(
    "--pod", "--pods", "pods", multiple=True, metavar="NAME", help="Of pods whose name begins so, or ns/name."
)
@click.option(
    "-n", "--namespace", "--namespaces", "namespaces", multiple=True, help="Of pods in this namespace."
)
@click.option("--host", is_flag=True, help="Of processes of no pod.")
@click.option(
    "--process",
    "--processes",
    "programs",
    multiple=True,
    metavar="REGEX",
    help="Of programs whose path has this.",
)
@click.option(
    "-e",
    "--event-types",
    "kinds",
    multiple=True,
    metavar=f"{{{','.join(EVENT_TYPES)}}}",
    help="Of these types; with commas between them, or repeated.",
)
@click.option(
    "--raised", is_flag=True, help="Of programs that have rights by their file: suid, capabilities."
)
@click.option(
    "--fileless", is_flag=True, help="Of programs whose file has no name: deleted, or never had one."
)
@click.option("--policy", "policies", multiple=True, metavar="NAME", help="Told for this tracing policy.")
@click.option("--node", "nodes", multiple=True, help="Of this node.")
@click.option(
    "--allow-list",
    "allow",
    default="",
    metavar="JSON",
    help='Events that one of these filters matches: {"event_set":["PROCESS_EXEC"],"pod_regex":["^web-"]}.',
)
@click.option("--deny-list", "deny", default="", metavar="JSON", help="No events that one of these matches.")
@click.option("--timestamps", is_flag=True, help="Begin compact lines with the time.")
@click.option(
    "--color", "colour", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True
)
@click.pass_obj
def events(
    target: Target,
    *,
    form: str,
    follow: bool,
    since: str | None,
    pods: Sequence[str],
    namespaces: Sequence[str],
    host: bool,
    programs: Sequence[str],
    kinds: Sequence[str],
    raised: bool,
    fileless: bool,
    policies: Sequence[str],
    nodes: Sequence[str],
    allow: str,
    deny: str,
    timestamps: bool,
    colour: str,
) -> None:
    """Show which programs ran: started by whom, in which pod, with which rights, and how they ended.

    Options of one kind widen what is shown, those of different kinds narrow it.  What is shown was stored by
    the nodes' service `sensor`; what is missing there is counted and told at the end.
    """
    from cirri.cli.eventlines import compact
    from cirri.history.runtimejson import record
    from cirri.manifests.runtimefilter import wanted as listed_of

    chosen = [each for some in kinds for each in some.split(",") if each]
    if wrong := [each for each in chosen if each not in EVENT_TYPES]:
        raise click.BadParameter(f"{wrong[0]!r} is no type of event; there are: {', '.join(EVENT_TYPES)}")
    of_process = wanted_of(pods=pods, host=host, programs=programs, kinds=chosen)
    listed = listed_of(allow, deny)

    def wanted(event: RuntimeEvent, process: Process) -> bool:
        about = process.binary_properties
        return (
            of_process(event, process)
            and (not raised or bool(about and about.privileges_changed))
            and (not fileless or bool(about and (about.anonymous or about.deleted)))
            and (not policies or event.policy_name in policies)
        )

    painted = colour == "always" or (colour == "auto" and sys.stdout.isatty())

    def show(batch: RuntimeBatch) -> None:
        for event in batch.events:
            if event.time < begin or not wanted(event, batch.processes[event.process]):
                continue
            if not listed(event, batch):
                continue
            if form == "json":
                click.echo(json.dumps(record(event, batch), ensure_ascii=False))
            else:
                click.echo(compact(event, batch, colour=painted, times=timestamps))

    begin = _begin(since, follow=follow)

    async def work(bus: Bus) -> None:
        await _read(bus, show, (begin, tuple(namespaces), frozenset(nodes)), follow=follow)

    try:
        with_bus(target, work)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(0) from None


def wanted_of(*, pods: Sequence[str], host: bool, programs: Sequence[str], kinds: Sequence[str]) -> Wanted:
    """Whether an event is asked for.  Raises: click.BadParameter (no regular expression)."""
    try:
        patterns = [re.compile(each) for each in programs]
    except re.error as error:
        raise click.BadParameter(f"{error.pattern!r} is no regular expression: {error}") from None

    def wanted(event: RuntimeEvent, process: Process) -> bool:
        pod = process.pod
        name = f"{pod.namespace}/{pod.name}" if pod else ""
        whose = not pods and not host
        whose |= host and pod is None
        whose |= pod is not None and any(
            (name if "/" in each else pod.name).startswith(each) for each in pods
        )
        return (
            whose
            and (not kinds or event.type in kinds)
            and (not patterns or any(each.search(process.binary) for each in patterns))
        )

    return wanted


def _begin(since: str | None, *, follow: bool) -> int:
    """Unix time, ns."""
    from cirri.cli.flowtime import parse

    now = time.time_ns()
    return now if since is None and follow else parse(since or "5m", now)


async def _read(
    bus: Bus,
    show: Callable[[RuntimeBatch], None],
    where: tuple[int, Sequence[str], frozenset[str]],
    *,
    follow: bool,
) -> None:
    """Give every batch to *show* that may hold what is asked for: (since, namespaces, nodes; empty: all)."""
    import asyncio

    from cirri.history.runtimewire import decode
    from cirri.kv.log import Tail
    from cirri.model.runtimeevents import RUNTIME_LOG, runtime_subject

    begin, namespaces, nodes = where
    least: dict[tuple[str, int, str], int] = {}
    most: dict[tuple[str, int, str], int] = {}

    async def one(namespace: str) -> None:
        tail = Tail(bus.link, RUNTIME_LOG.name, runtime_subject(namespace, "*"), begin)
        try:
            if not follow:
                await tail.__aenter__()
            async for entry in tail.entries(follow=follow):
                batch = decode(entry.data)
                if nodes and batch.node not in nodes:
                    continue
                show(batch)
                for cause, count in batch.lost.items():
                    key = batch.node, batch.instance, cause
                    least.setdefault(key, count)
                    if count > most.get(key, least[key]) and follow:
                        click.echo(f"{batch.node}: events were lost: {CAUSES.get(cause, cause)}", err=True)
                    most[key] = count
        finally:
            await tail.close()

    await asyncio.gather(*(one(each) for each in namespaces or ("*",)))
    for (node, _, cause), count in most.items():
        if missing := count - least[node, _, cause]:
            click.echo(
                f"{node}: {missing} events of this time are lost: {CAUSES.get(cause, cause)}", err=True
            )


async def stored(bus: Bus, show: Callable[[RuntimeBatch], None], begin_ns: int) -> None:
    """Give every batch to *show* that was stored since *begin_ns*."""
    await _read(bus, show, (begin_ns, (), frozenset()), follow=False)


async def follow(bus: Bus, show: Callable[[RuntimeBatch], None], begin_ns: int) -> None:
    """Give every batch to *show* that is stored from *begin_ns* on, for ever."""
    await _read(bus, show, (begin_ns, (), frozenset()), follow=True)
