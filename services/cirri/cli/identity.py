"""``cirri identity``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from cirri.cli.bus import with_bus
from cirri.cli.context import Target
from cirri.cli.output import emit, for_people, output, some, table
from cirri.errors import CirriError
from cirri.labels import RESERVED_LABELS
from cirri.model import IDENTITIES

if TYPE_CHECKING:
    from cirri.kv import Bus

Labels = Mapping[int, Sequence[str]]


class NoIdentity(CirriError):
    """The number stands for nothing."""

    def __init__(self, number: int, known: Iterable[int]) -> None:
        self.number, self.known = number, tuple(known)
        self.hint = f"Identities: {some([str(each) for each in self.known])}; `cirri identity list` shows all"
        super().__init__(f"no identity {number}")


@click.group()
def identity() -> None:
    """Show security identities: a number for each set of labels that counts."""


@identity.command("list")
@output
@click.pass_obj
def list_(target: Target, form: str | None) -> None:
    """List every identity, the reserved ones first."""
    _show(with_bus(target, all_labels), form)


@identity.command("get")
@click.argument("number", type=click.IntRange(0, 2**32 - 1), metavar="ID")
@output
@click.pass_obj
def get(target: Target, number: int, form: str | None) -> None:
    """Show the labels that a number stands for."""
    found = with_bus(target, all_labels)
    if number not in found:
        raise NoIdentity(number, found)
    _show({number: found[number]}, form)


async def all_labels(bus: Bus) -> Labels:
    """Labels of every identity in use, reserved ones included, by number."""
    stored = {e.value.id: e.value.labels for e in await bus.entries(IDENTITIES) if e.value.labels}
    reserved = {int(number): tuple(sorted(labels)) for number, labels in RESERVED_LABELS.items()}
    return dict(sorted((reserved | stored).items()))


def _show(found: Labels, form: str | None) -> None:
    if form:
        emit([{"id": number, "labels": list(labels)} for number, labels in found.items()], form)
        return
    click.echo(
        table(("ID", "LABELS"), [(str(number), for_people(labels)) for number, labels in found.items()])
    )
