"""``cirri apply`` and ``cirri delete``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
import msgspec

from cirri.cli.bus import with_bus
from cirri.cli.confirm import full_name, how_to_confirm
from cirri.cli.context import Target
from cirri.cli.output import emit, output, some
from cirri.cli.waiting import acknowledged
from cirri.errors import CirriError
from cirri.manifests import (
    KINDS,
    POLICY_KINDS,
    Document,
    ManifestError,
    Problem,
    kind_named,
    load,
    resources,
    unknown_kind,
)
from cirri.manifests.api import (
    APPLY,
    CONFIRM_WITHIN_S,
    DELETE,
    LONGEST_CONFIRM_S,
    ApplyObject,
    ApplyReply,
    ApplyRequest,
    DeleteRequest,
    ObjectRef,
    Result,
)
from cirri.model import RESOURCES, Resource, resource_key

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

    def __init__(self, what: str, error: str, kept: Sequence[str] = ()) -> None:
        self.error, self.kept = error, tuple(kept)
        stay = "versions stay" if len(kept) > 1 else "version stays"
        still = f"\nThe earlier {stay} in force: {some(kept)}" if kept else ""
        super().__init__(f"nothing was {what}:\n{error}{still}")


_yes = click.option("--yes", is_flag=True, help="Also if Services lose addresses that are in use.")
POOL = "CiliumLoadBalancerIPPool"
"""A kind whose changes are planned first."""


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
@click.option(
    "--confirm-within",
    "within_s",
    type=click.IntRange(1, LONGEST_CONFIRM_S),
    metavar="SECONDS",
    help="Undo policies unless `cirri confirm` comes in time.  "
    f"[default: {CONFIRM_WITHIN_S} for policies that select nodes; others are for good]",
)
@click.option("--no-confirm", "for_good", is_flag=True, help="Ask for no confirmation.")
@_yes
@_waits
@output
@click.pass_obj
def apply(
    target: Target,
    files: Sequence[str],
    *,
    within_s: int | None,
    for_good: bool,
    yes: bool,
    wait: bool,
    timeout_s: float,
    form: str | None,
) -> None:
    """Create or update objects from manifests.

    Everything is checked first; if one document is wrong, all problems are shown and nothing is
    applied.

    A policy that selects nodes can cut you off from them, so it is undone unless you confirm it.
    """
    if for_good and within_s is not None:
        raise click.UsageError("give either --confirm-within or --no-confirm")
    stdin = sys.stdin.read() if "-" in files else None
    try:
        objects = resources(files, stdin, unsupported=_not_enforced)
    except ManifestError as error:
        raise NotDone("applied", str(error), _in_force(target, _policies_of(files, stdin))) from error
    if within_s is not None and not any(found.kind in POLICY_KINDS for found in objects):
        raise click.UsageError("--confirm-within: none of these objects is a policy")
    request = ApplyRequest(
        objects=tuple(ApplyObject(manifest=found.manifest, source=found.source) for found in objects),
        confirm_within_s=within_s,
        for_good=for_good,
    )
    if not yes and any(each.kind == POOL for each in objects):
        from cirri.cli.lbipam import guard

        guard(target, put=objects)
    refs = [ObjectRef(kind=o.kind, namespace=o.namespace, name=o.name) for o in objects]
    _ask(target, APPLY, request, "applied", refs, wait_s=timeout_s if wait else None, form=form)


def _policies_of(files: Sequence[str], stdin: str | None) -> list[ObjectRef]:
    """The policies that manifests name, right or wrong."""
    with suppress(ManifestError):
        found = [_named(document) for document in load(files, stdin)]
        return [ref for ref in found if isinstance(ref, ObjectRef)]
    return []


def _in_force(target: Target, refs: Sequence[ObjectRef]) -> list[str]:
    """Those of *refs* that are policies which the cluster, if it can be asked, has already."""
    if not any(ref.kind in POLICY_KINDS for ref in refs):
        return []
    with suppress(CirriError):
        return with_bus(target, lambda bus: _known(bus, refs))
    return []


async def _known(bus: Bus, refs: Iterable[ObjectRef]) -> list[str]:
    found = []
    for ref in refs:
        if ref.kind not in POLICY_KINDS:
            continue
        with suppress(CirriError):
            entry = await bus.get(RESOURCES, resource_key(ref.kind, ref.namespace, ref.name, ""))
            if entry is not None:
                found.append(f"{ref.kind} {full_name(ref)} (revision {entry.revision})")
    return found


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
@_yes
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
    yes: bool,
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
    if not yes and any(ref.kind == POOL for ref in refs):
        from cirri.cli.lbipam import guard

        guard(target, gone=refs)
    request = DeleteRequest(objects=tuple(refs), ignore_missing=ignore_not_found)
    _ask(target, DELETE, request, "deleted", (), wait_s=timeout_s if wait else None, form=form)


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
    refs: Sequence[ObjectRef],
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
            raise NotDone(done, reply.error, await _known(bus, refs))
        if form is None:
            for result in reply.results:
                click.echo(_line(result))
        for sentence in (*(f"Warning: {w}" for w in reply.warnings), *how_to_confirm(reply.results, target)):
            click.echo(sentence, err=True)
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
