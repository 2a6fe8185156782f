"""``cirri apply`` and ``cirri delete``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from cirri.cli.bus import with_bus
from cirri.cli.context import Target
from cirri.cli.output import emit, output
from cirri.cli.waiting import acknowledged
from cirri.errors import CirriError
from cirri.manifests import KINDS, Document, ManifestError, Problem, kind_named, load, resources, unknown_kind
from cirri.manifests.api import (
    APPLY,
    DELETE,
    ApplyObject,
    ApplyReply,
    ApplyRequest,
    DeleteRequest,
    ObjectRef,
    Result,
)
from cirri.model import Resource

if TYPE_CHECKING:
    from cirri.kv import Bus

ENVELOPE = 1024
"""Bytes of a message that are not its payload, at most."""
REQUEST_S = 30.0

wait_options = (
    click.option("--wait", is_flag=True, help="Return when every node has it in force and pods are ready."),
    click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="With --wait: give up after this long.",
    ),
)


class NotDone(CirriError):
    """The cluster refused the request; nothing has changed."""

    def __init__(self, what: str, error: str) -> None:
        self.error = error
        super().__init__(f"nothing was {what}:\n{error}")


def _waits(command: Any) -> Any:
    for option in reversed(wait_options):
        command = option(command)
    return command


@click.command()
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    required=True,
    metavar="FILE",
    help="A file, a folder (searched through for *.yaml, *.yml, *.json) or - for standard input; repeatable.",
)
@_waits
@output
@click.pass_obj
def apply(target: Target, files: Sequence[str], *, wait: bool, timeout_s: float, form: str | None) -> None:
    """Create or update objects from manifests.

    Everything is checked first; if one document is wrong, all problems are shown and nothing is
    applied.
    """
    try:
        objects = resources(files, unsupported=_not_enforced)
    except ManifestError as error:
        raise NotDone("applied", str(error)) from error
    request = ApplyRequest(
        objects=tuple(ApplyObject(manifest=found.manifest, source=found.source) for found in objects)
    )
    _ask(target, APPLY, request, "applied", wait_s=timeout_s if wait else None, form=form)


def _not_enforced(policy: Resource) -> list[tuple[str, str]]:
    from cirri.engine.parse import faults, unsupported

    return [*faults(policy), *unsupported(policy)]


@click.command()
@click.argument("kind", required=False)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "-f", "--filename", "files", multiple=True, metavar="FILE", help="Delete what these manifests name."
)
@click.option("-n", "--namespace", default="default", show_default=True, help="Namespace of the names given.")
@click.option("--ignore-not-found", is_flag=True, help="What does not exist is no error.")
@_waits
@output
@click.pass_obj
def delete(
    target: Target,
    kind: str | None,
    names: Sequence[str],
    *,
    files: Sequence[str],
    namespace: str,
    ignore_not_found: bool,
    wait: bool,
    timeout_s: float,
    form: str | None,
) -> None:
    """Delete objects by name (KIND NAME..., KIND/NAME) or by manifest (-f FILE).

    A namespace takes everything in it along.
    """
    if bool(files) == bool(kind):
        raise click.UsageError("give either KIND and NAME, or -f FILE")
    refs = _from_files(files) if files else _from_words(str(kind), names, namespace)
    request = DeleteRequest(objects=tuple(refs), ignore_missing=ignore_not_found)
    _ask(target, DELETE, request, "deleted", wait_s=timeout_s if wait else None, form=form)


def _from_words(word: str, names: Sequence[str], namespace: str) -> list[ObjectRef]:
    word, slash, name = word.partition("/")
    names = [name, *names] if slash else list(names)
    if not names:
        raise click.UsageError(f"which {word}? Give its NAME")
    kind = kind_named(word)
    if kind is None:
        raise click.UsageError(unknown_kind(word))
    return [
        ObjectRef(kind=kind.name, namespace=namespace if kind.namespaced else "", name=name) for name in names
    ]


def _from_files(files: Sequence[str]) -> list[ObjectRef]:
    """What the manifests name; the rest of them need not be right."""
    refs, problems = [], []
    for document in load(files):
        found = _named(document)
        if isinstance(found, Problem):
            problems.append(found)
        else:
            refs.append(found)
    if problems:
        raise NotDone("deleted", str(ManifestError(problems)))
    return refs


def _named(document: Document) -> ObjectRef | Problem:
    manifest = document.manifest if isinstance(document.manifest, dict) else {}
    kind, metadata = manifest.get("kind"), manifest.get("metadata")
    if not isinstance(kind, str) or kind not in KINDS:
        return document.problem(("kind",), unknown_kind(str(kind or "")))
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not isinstance(metadata, dict):
        return document.problem(("metadata", "name"), "required, but missing")
    namespace = metadata.get("namespace") or "default" if KINDS[kind].namespaced else ""
    return ObjectRef(kind=kind, namespace=str(namespace), name=name)


def _ask(
    target: Target,
    subject: str,
    request: ApplyRequest | DeleteRequest,
    done: str,
    *,
    wait_s: float | None,
    form: str | None,
) -> None:
    payload = msgspec.msgpack.encode(request)

    async def work(bus: Bus) -> None:
        if len(payload) > (limit := bus.largest_message - ENVELOPE):
            says = f"the request has {len(payload)} bytes, the bus takes {limit}; give fewer files at a time"
            raise NotDone(done, says)
        reply = msgspec.msgpack.decode(await bus.request(subject, payload, REQUEST_S), type=ApplyReply)
        if reply.error is not None:
            raise NotDone(done, reply.error)
        if form is None:
            for result in reply.results:
                click.echo(_line(result))
        for warning in reply.warnings:
            click.echo(f"Warning: {warning}", err=True)
        if wait_s is not None:
            await acknowledged(bus, reply.results, wait_s)
        if form is not None:
            emit(reply, form)

    with_bus(target, work)


def _line(result: Result) -> str:
    """As ``kubectl`` says it: ``deployment.apps/deathstar created``."""
    name = f"{KINDS[result.kind].title}/{result.name}"
    if result.action == "deleted":
        return f'{KINDS[result.kind].title} "{result.name}" deleted'
    return f"{name} {result.action}"
