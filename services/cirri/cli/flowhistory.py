"""The stored stream of flows, for commands that ask about it: which part of it, and what is missing there."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cirri.cli.bus import with_bus
from cirri.cli.context import Target

if TYPE_CHECKING:
    from cirri.history.questions import Question, Scope
    from cirri.history.rows import Table
    from cirri.kv import Bus
    from cirri.model.flows import FlowBatch

T = TypeVar("T")
CAUSES = {
    "ring": "the kernel's ring buffer was full",
    "reader": "nobody read them in time",
    "l7": "proxies could not tell them",
    "stream": "they could not be stored",
}


def scope_options(since: str, *, namespace: str | None = "default") -> Callable[[Any], Any]:
    """Options that say which flows; *since* and *namespace* (None: all) hold if nothing is said."""
    told = "" if namespace else "  [default: of all]"
    options = [
        click.option(
            "--since",
            default=since,
            show_default=True,
            metavar="TIME",
            help="From when on: back from now (90s, 5m, 24h), or a date in UTC.",
        ),
        click.option("--until", metavar="TIME", help="Until when.  [default: now]"),
        click.option(
            "-n",
            "--namespace",
            default=namespace,
            show_default=bool(namespace),
            help=f"Flows that have an end in this namespace.{told}",
        ),
    ]
    if namespace:
        options.append(click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="All flows."))

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def scope_of(*, since: str, until: str | None, namespace: str | None, everywhere: bool = False) -> Scope:
    """What the options mean.  Raises BadTime."""
    from cirri.cli.flowtime import parse
    from cirri.history.questions import Scope

    now = time.time_ns()
    return Scope(
        parse(since, now),
        parse(until, now) if until else now,
        None if everywhere or namespace is None else frozenset({namespace}),
    )


def ask_stream(target: Target, question: Question[T], scope: Scope) -> T:
    """The answer about the flows in *scope*; what is missing among them is said on stderr."""

    async def work(bus: Bus) -> T:
        return await answered(bus, question, scope)

    return with_bus(target, work)


async def answered(bus: Bus, question: Question[T], scope: Scope) -> T:
    """As :func:`ask_stream`, over a connection that there is."""
    from cirri.history.joining import Joining

    joining = Joining()
    async for small in tables(bus, scope):
        for table in joining.add(small):
            question.take(scope.of(table))
    for table in joining.rest():
        question.take(scope.of(table))
    return question.answer()


async def tables(
    bus: Bus, scope: Scope, *, newest_first: bool = False, losses: bool = True
) -> AsyncIterator[Table]:
    """The stored flows, table by table; with *losses* what is missing among them is said on stderr."""
    from cirri.history.rows import Table

    missing = Losses()
    async for batch in _batches(bus, scope, newest_first=newest_first):
        missing.note(batch)
        yield Table.of(batch)
    for sentence in missing.sentences() if losses else ():
        click.echo(f"Warning: {sentence}", err=True)


async def _batches(bus: Bus, scope: Scope, *, newest_first: bool) -> AsyncIterator[FlowBatch]:
    """Of everybody, as one end may be elsewhere; a tenant gets what was decided in its own namespaces."""
    from cirri.history.stream import read
    from cirri.kv import NotPermitted

    chosen = partial(read, bus, since_ns=scope.since_ns, until_ns=scope.until_ns, newest_first=newest_first)
    try:
        async for batch in chosen():
            yield batch
        return
    except NotPermitted:
        if scope.namespaces is None:
            raise
    click.echo(f"Only what was decided in {', '.join(scope.namespaces)} may be read.", err=True)
    async for batch in chosen(namespaces=scope.namespaces):
        yield batch


class Losses:
    """What is missing among batches that have been read."""

    def __init__(self) -> None:
        from cirri.history.stream import Gaps

        self._gaps = Gaps()
        self._least: dict[tuple[str, int, str], int] = {}
        self._most: dict[tuple[str, int, str], int] = {}

    def note(self, batch: FlowBatch) -> None:
        """*batch* has been read."""
        self._gaps.note(batch)
        for cause, count in batch.lost.items():
            key = batch.node, batch.instance, cause
            self._least[key] = min(self._least.get(key, count), count)
            self._most[key] = max(self._most.get(key, count), count)

    def sentences(self) -> list[str]:
        """What is to be said about it; []: nothing is missing."""
        lost: dict[str, int] = {}
        for key, most in self._most.items():
            lost[key[2]] = lost.get(key[2], 0) + most - self._least[key]
        found = [
            f"{count} flows of this time are lost: {CAUSES.get(cause, cause)}; counts are too low"
            for cause, count in sorted(lost.items())
            if count
        ]
        if self._gaps.missing > 0:
            found.append(f"{self._gaps.missing} batches of this time are missing; counts are too low")
        return found
