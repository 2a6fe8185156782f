"""``cirri confirm`` and ``cirri rollback``: policies that are undone unless a person keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

from cirri.cli.bus import with_bus
from cirri.cli.context import Target
from cirri.cli.output import emit, output, some, table
from cirri.errors import CirriError
from cirri.manifests import KINDS, POLICY_KINDS, kind_named
from cirri.manifests.api import CONFIRM, ROLLBACK, ApplyReply, ConfirmRequest, ObjectRef, Result
from cirri.model import RESOURCES, Resource, resource_key
from cirri.model.resource import CONFIRM_BY

if TYPE_CHECKING:
    from cirri.kv import Bus

REQUEST_S = 10.0
_DONE = {CONFIRM: "confirmed", ROLLBACK: "rolled back"}
_names = click.argument("names", nargs=-1, metavar="[NAME | NAMESPACE/NAME | KIND/NAME]...")


class NotProvisional(CirriError):
    """The word names nothing that waits for a confirmation, or more than one thing."""

    def __init__(self, word: str, known: Sequence[Resource], matching: Sequence[Resource] = ()) -> None:
        self.word, self.known = word, tuple(known)
        if matching:
            self.hint = f"Say which: {some([f'{each.kind}/{each.name}' for each in matching])}"
            super().__init__(f'"{word}" names {len(matching)} provisional objects')
            return
        self.hint = f"Provisional now: {some([full_name(each) for each in known]) or 'nothing'}"
        super().__init__(
            f'"{word}" is not provisional: it was confirmed, or undone because nobody did in time'
        )


class NotSettled(CirriError):
    """The cluster refused the request; nothing has changed."""

    def __init__(self, what: str, error: str) -> None:
        self.error = error
        super().__init__(f"nothing was {what}:\n{error}")


@click.command()
@_names
@click.option("--all", "everything", is_flag=True, help="All that is provisional.")
@output
@click.pass_obj
def confirm(target: Target, names: Sequence[str], *, everything: bool, form: str | None) -> None:
    """Keep policies that would be undone otherwise; without NAME show which those are.

    Policies that select nodes, and all that is applied with --confirm-within, are provisional.
    """
    if names or everything:
        _settle(target, CONFIRM, names, form, everything=everything)
        return
    found = with_bus(target, provisional)
    if form:
        emit([_object(each) for each in found], form)
    else:
        click.echo(listing(found, datetime.now(UTC)))


@click.command()
@_names
@click.option("--all", "everything", is_flag=True, help="All that is provisional.")
@output
@click.pass_obj
def rollback(target: Target, names: Sequence[str], *, everything: bool, form: str | None) -> None:
    """Undo provisional policies now: the last confirmed version comes back; a new one is deleted."""
    if not names and not everything:
        raise click.UsageError("which one? Give its NAME or --all; `cirri confirm` shows what there is")
    _settle(target, ROLLBACK, names, form, everything=everything)


def _settle(
    target: Target, subject: str, names: Sequence[str], form: str | None, *, everything: bool
) -> None:
    if names and everything:
        raise click.UsageError("give either NAME or --all")

    async def work(bus: Bus) -> ApplyReply:
        known = [] if everything else await provisional(bus)
        refs = [named(known, word) for word in names]
        request = msgspec.msgpack.encode(ConfirmRequest(objects=tuple(refs)))
        return msgspec.msgpack.decode(await bus.request(subject, request, REQUEST_S), type=ApplyReply)

    reply = with_bus(target, work)
    if reply.error is not None:
        raise NotSettled(_DONE[subject], reply.error)
    if form:
        emit(reply, form)
        return
    for result in reply.results:
        click.echo(f"{KINDS[result.kind].title}/{result.name} {_outcome(result)}")
    if not reply.results:
        click.echo("Nothing is provisional.")


def _outcome(result: Result) -> str:
    match result.action:
        case "restored":
            return "rolled back to its last confirmed version"
        case "deleted":
            return "deleted: it had no confirmed version"
        case action:
            return action


async def provisional(bus: Bus) -> list[Resource]:
    """The policies that wait for their confirmation."""
    found = []
    for kind in sorted(POLICY_KINDS):
        found += [e.value for e in await bus.entries(RESOURCES, resource_key(kind, "*", "*", "*"))]
    return [each for each in found if deadline(each)]


def deadline(resource: Resource) -> str:
    """RFC 3339: until when *resource* must be confirmed; "" if it is for good."""
    return str((resource.manifest["metadata"].get("annotations") or {}).get(CONFIRM_BY, ""))


def left_text(by: str, now: datetime) -> str:
    """How long it is until *by*: ``43s``; at least ``0s``."""
    return f"{max(0, round((datetime.fromisoformat(by) - now).total_seconds()))}s"


def named(known: Sequence[Resource], word: str) -> ObjectRef:
    """The provisional object that *word* names.  Raises :class:`NotProvisional`."""
    first, slash, name = word.rpartition("/")
    kind = kind_named(first) if slash else None
    found = [
        each
        for each in known
        if each.name == name and (not slash or each.namespace == first or (kind and each.kind == kind.name))
    ]
    if len(found) != 1:
        raise NotProvisional(word, known, found)
    return ObjectRef(kind=found[0].kind, namespace=found[0].namespace, name=found[0].name)


def listing(found: Sequence[Resource], now: datetime) -> str:
    """The table of what is provisional, and what to do about it."""
    if not found:
        return "Nothing is provisional."
    rows = [
        (f"{KINDS[each.kind].title}/{each.name}", each.namespace or "-", deadline(each),
         left_text(deadline(each), now))
        for each in found
    ]  # fmt: skip
    return "\n".join(
        (
            table(("NAME", "NAMESPACE", "UNDONE AT", "IN"), rows),
            "",
            "`cirri confirm NAME` (or --all) keeps it, `cirri rollback NAME` undoes it now.",
        )
    )


def _object(resource: Resource) -> dict[str, str]:
    return {
        "kind": resource.kind,
        "namespace": resource.namespace,
        "name": resource.name,
        "confirmBy": deadline(resource),
    }


def full_name(named: Resource | ObjectRef | Result) -> str:
    """``NAMESPACE/NAME``, or ``NAME`` of what is cluster-wide."""
    return f"{named.namespace}/{named.name}" if named.namespace else named.name


def how_to_confirm(results: Iterable[Result], target: Target, now: datetime | None = None) -> list[str]:
    """What to say to a person about those of *results* that are provisional."""
    waiting = [result for result in results if result.confirm_by]
    if not waiting:
        return []
    now = now or datetime.now(UTC)
    lines = []
    for each in waiting:
        becomes = "is deleted again" if each.undo == "delete" else "goes back to its last confirmed version"
        left = left_text(each.confirm_by, now)
        lines.append(f"Provisional: {full_name(each)} {becomes} at {each.confirm_by} (in {left}).")
    what = full_name(waiting[0]) if len(waiting) == 1 else "--all"
    context = "" if target.name == Target().name else f" --context {target.name}"
    lines.append(f"Try whether everything still works, then keep it: cirri{context} confirm {what}")
    return lines
