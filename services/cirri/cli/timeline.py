"""``cirri timeline``: what a pod's programs and connections did, in one list by time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from cirri.cli.bus import with_bus
from cirri.cli.context import Target
from cirri.cli.eventlines import compact
from cirri.cli.events import follow as follow_programs
from cirri.cli.events import stored
from cirri.cli.flowhistory import scope_of, tables
from cirri.history.runtimejson import record
from cirri.layout import DropReason

if TYPE_CHECKING:
    from cirri.history.rows import Table
    from cirri.kv import Bus
    from cirri.model.runtimeevents import Process, RuntimeBatch

POLICY_DROPS = (DropReason.POLICY, DropReason.POLICY_DENY)
"""Reasons: no rule allowed it, and a rule denied it."""
HOLD_S = 2.0
"""How long what is followed is held back, so that what is stored a little later comes in its place."""


class Happening(NamedTuple):
    """One line of the list."""

    time: int
    """Unix time, ns."""
    text: str
    said: dict[str, Any]


class Wanted(NamedTuple):
    """Whose: of a pod (namespace, name), or of one program in one process."""

    pod: tuple[str, str] | None = None
    exec_id: str = ""

    def process(self, one: Process) -> bool:
        """Whether it is that pod's, or that program."""
        if self.exec_id:
            return one.exec_id == self.exec_id
        return one.pod is not None and (one.pod.namespace, one.pod.name) == self.pod


@click.group()
def timeline() -> None:
    """Show what programs and connections did, in one list by time.

    Programs that started and ended, what tracing policies tell, TCP connections, lookups of names, requests,
    and what policies decided of new connections, by which rule and for which program.  All of it is read from
    what nodes have stored: yesterday's too, as long as it is kept.

    Lines of JSON have one shape each: an object with "flow" is as `cirri observe -o json` writes it, every
    other one as `cirri events -o json` does.
    """


def _options(command: Any) -> Any:
    for option in (
        click.option("-o", "--output", "form", type=click.Choice(["compact", "json"]), default="compact"),
        click.option("--packets", is_flag=True, help="Packets that were forwarded, too."),
        click.option("--until", metavar="TIME", help="Until when.  [default: now]"),
        click.option("--since", metavar="TIME",
                     help="From when on: back from now (90s, 5m, 24h), or a date in UTC.  "
                          "[default: 10m; now with -f]"),
        click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on."),
    ):  # fmt: skip
        command = option(command)
    return command


@timeline.command()
@click.argument("name")
@click.option("-n", "--namespace", default="default", show_default=True)
@_options
@click.pass_obj
def pod(target: Target, /, *, name: str, namespace: str, **options: Any) -> None:
    """Of the pod NAME (or NAMESPACE/NAME); it need not be there any more."""
    before, slash, after = name.partition("/")
    _show(target, Wanted(pod=(before, after) if slash else (namespace, name)), **options)


@timeline.command()
@click.argument("exec_id")
@_options
@click.pass_obj
def process(target: Target, /, *, exec_id: str, **options: Any) -> None:
    """Of one program in one process, by its number in `cirri events -o json`."""
    _show(target, Wanted(exec_id=exec_id), **options)


def _show(
    target: Target,
    wanted: Wanted,
    *,
    since: str | None,
    until: str | None,
    packets: bool,
    form: str,
    follow: bool,
) -> None:
    if follow and until:
        raise click.UsageError("--until does not go with --follow")
    scope = scope_of(since=since or ("0s" if follow else "10m"), until=until, namespace=None, everywhere=True)

    def say(found: list[Happening]) -> None:
        for one in found:
            if one.time >= scope.since_ns and (follow or one.time <= scope.until_ns):
                click.echo(one.text if form == "compact" else json.dumps(one.said, ensure_ascii=False))

    async def work(bus: Bus) -> None:
        found: list[Happening] = []
        await stored(bus, lambda batch: found.extend(programs(batch, wanted)), scope.since_ns)
        async for table in tables(bus, scope):
            found.extend(flows(table, wanted, packets=packets))
        say(sorted(found, key=lambda each: each.time))

    async def go_on(bus: Bus) -> None:
        await _follow(bus, wanted, scope.since_ns, say, packets=packets)

    try:
        with_bus(target, go_on if follow else work)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(0) from None


class Window:
    """What has been read and not yet said, so that it is said by time though it comes from two streams."""

    def __init__(self) -> None:
        self._held: list[tuple[float, Happening]] = []

    def add(self, found: Iterable[Happening], now_s: float) -> None:
        """*found* was read at *now_s*, seconds of any one clock."""
        self._held.extend((now_s, one) for one in found)

    def due(self, now_s: float) -> list[Happening]:
        """By time: what was read HOLD_S before *now_s*, and all that happened before that."""
        last = max((one.time for at, one in self._held if now_s - at >= HOLD_S), default=-1)
        due = sorted((one for _, one in self._held if one.time <= last), key=lambda one: one.time)
        self._held = [each for each in self._held if each[1].time > last]
        return due


async def _follow(
    bus: Bus, wanted: Wanted, since_ns: int, say: Callable[[list[Happening]], None], *, packets: bool
) -> None:
    """Give *say* what happens from *since_ns* on, for ever.  Raises: NotPermitted."""
    import asyncio

    from cirri.history import stream
    from cirri.history.rows import Table

    window = Window()

    async def of_flows() -> None:
        async for batch in stream.follow(bus, since_ns=since_ns):
            window.add(flows(Table.of(batch), wanted, packets=packets), time.monotonic())

    async def of_programs() -> None:
        await follow_programs(
            bus, lambda batch: window.add(programs(batch, wanted), time.monotonic()), since_ns
        )

    async def saying() -> None:
        while True:
            say(window.due(time.monotonic()))
            await asyncio.sleep(HOLD_S / 10)

    await asyncio.gather(of_flows(), of_programs(), saying())


def programs(batch: RuntimeBatch, wanted: Wanted) -> Iterator[Happening]:
    """What *batch* tells of whom is *wanted*."""
    for event in batch.events:
        if wanted.process(batch.processes[event.process]):
            text = compact(event, batch)
            if event.type != "process_exec":  # which rights it has was said then
                text = text.partition("🛑")[0].rstrip()
            yield Happening(event.time, _line(event.time, text), record(event, batch))


def flows(table: Table, wanted: Wanted, *, packets: bool) -> Iterator[Happening]:
    """The rows of *table* that have an end that is *wanted*: verdicts, drops and requests; *packets*: all."""
    import numpy as np

    from cirri.cli.flowlines import Printer, Style, as_json
    from cirri.history.rows import RowType
    from cirri.hubble.flows import Teller

    rows = table.rows
    if wanted.exec_id:
        pairs = [
            any(one is not None and one.exec_id == wanted.exec_id for one in (each.source, each.destination))
            for each in table.processes
        ]
        mask = np.array([False, *pairs])[rows["processes"]]
    else:
        mine = np.array([False, *((end.namespace, end.pod) == wanted.pod for end in table.ends)])
        mask = mine[rows["source_end"]] | mine[rows["destination_end"]]
    if not packets:
        kinds, told = rows["type"], np.isin(rows["reason"], POLICY_DROPS)
        # What a policy drops is told by its verdict already.
        mask &= (kinds == RowType.POLICY_VERDICT) | (kinds == RowType.L7) | ((kinds == RowType.DROP) & ~told)
    teller = Teller(table)
    printer = Printer(Style(policies=True, processes=True, time="RFC3339Nano"))
    for index in np.flatnonzero(mask).tolist():
        response = teller.response(index)
        when = int(rows["time"][index])
        text = printer.flow(response).partition(": ")[2]
        yield Happening(when, _line(when, f"🌐 {'flow':7} {text}"), json.loads(as_json(response)))


def _line(when_ns: int, text: str) -> str:
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(when_ns / 1e9, UTC):%b %d %H:%M:%S.%f}"[:-3] + f"  {text}"
