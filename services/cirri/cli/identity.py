"""``cirri identity``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from cirri.cli.bus import require_node, with_bus
from cirri.cli.context import Target
from cirri.cli.output import emit, for_people, output, some, table
from cirri.errors import CirriError
from cirri.labels import NAMES_SPACE, RESERVED_LABELS
from cirri.model import IDENTITIES
from cirri.model.bucket import token
from cirri.model.request import NameSetsReply

if TYPE_CHECKING:
    from cirri.kv import Bus

Labels = Mapping[int, Sequence[str]]


REQUEST_S = 5.0
_node = click.option("--node", metavar="NODE", help="Also this node's numbers for sets of names (toFQDNs).")


class NoIdentity(CirriError):
    """The number stands for nothing."""

    def __init__(self, number: int, known: Iterable[int], node: str | None = None) -> None:
        self.number, self.known = number, tuple(known)
        self.hint = f"Identities: {some([str(each) for each in self.known])}; `cirri identity list` shows all"
        if number in NAMES_SPACE and node is None:
            self.hint = "It is of a set of names, which each node has numbers of its own for: give --node"
        super().__init__(f"no identity {number}{f' on {node}' if node else ''}")


@click.group()
def identity() -> None:
    """Show security identities: a number for each set of labels that counts."""


@identity.command("list")
@_node
@output
@click.pass_obj
def list_(target: Target, *, node: str | None, form: str | None) -> None:
    """List every identity, the reserved ones first."""
    _show(with_bus(target, lambda bus: _known(bus, node)), form)


@identity.command("get")
@click.argument("number", type=click.IntRange(0, 2**32 - 1), metavar="ID")
@_node
@output
@click.pass_obj
def get(target: Target, number: int, *, node: str | None, form: str | None) -> None:
    """Show the labels that a number stands for."""
    found = with_bus(target, lambda bus: _known(bus, node))
    if number not in found:
        raise NoIdentity(number, found, node)
    _show({number: found[number]}, form)


async def _known(bus: Bus, node: str | None) -> Labels:
    """Labels of every identity, and of *node*'s numbers for sets of names ``fqdn:NAME``."""
    labels = await all_labels(bus)
    if node is None:
        return labels
    await require_node(bus, node)
    answer = await bus.request(f"cirri.datapath.{token(node)}.name-sets", b"", REQUEST_S)
    sets = msgspec.msgpack.decode(answer, type=NameSetsReply).sets
    return {**labels, **{number: [f"fqdn:{name}" for name in names] for number, names in sets.items()}}


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
