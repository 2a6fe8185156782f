"""``cirri policy simulate`` and ``generate``: policies beside the traffic that was seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from cirri.cli.bus import with_bus
from cirri.cli.context import Target
from cirri.cli.flowhistory import answered, scope_of, scope_options
from cirri.cli.flows import harmless
from cirri.cli.output import Cell, age, emit, output, table
from cirri.errors import CirriError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cirri.history.questions import Scope
    from cirri.history.replay import Asked, Place, Tally
    from cirri.history.simulate import Effect, Simulation
    from cirri.kv import Bus
    from cirri.model import Resource

DENIED = 3
"""Exit code: something that was seen would be denied."""
UNREAD = "Would be read by a proxy; no request was seen, so nobody knows whether they pass:"


class NothingDeleted(CirriError):
    """The cluster has no object of that kind and name."""

    def __init__(self, word: str, known: Sequence[str]) -> None:
        self.word = word
        self.hint = f"There are: {', '.join(known) or 'none'}"
        super().__init__(f"--delete {word}: no such object; write KIND/NAME or KIND/NAMESPACE/NAME")


class _History(NamedTuple):
    resources: list[Resource]
    traffic: Mapping[Asked, Tally]


@click.command()
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    metavar="FILE",
    help="Objects that would be applied: a file, a folder or -; repeatable.",
)
@click.option(
    "--delete",
    "deleted",
    multiple=True,
    metavar="KIND/[NAMESPACE/]NAME",
    help="An object that would be deleted, such as cnp/rule1; repeatable.",
)
@scope_options("24h", namespace=None)
@output
@click.pass_context
def simulate(
    ctx: click.Context, /, files: Sequence[str], deleted: Sequence[str], *, form: str | None, **given: Any
) -> None:
    """Show what policies would do to the traffic that was seen, before they are applied.

    All that was seen (who, to whom, port, request, names of addresses) is put to the engine that feeds the
    kernel, once with the objects that the cluster has and once with the change.  What goes otherwise is
    listed, with how often and when it was seen.  Nothing is changed.

    Exits with 0 if nothing that was seen would be denied, with 3 if something would.
    """
    from cirri.history.simulate import changed
    from cirri.history.simulate import simulate as simulated
    from cirri.manifests import resources as read

    if not files and not deleted:
        raise click.UsageError("what would change?  Give -f FILE or --delete KIND/NAME")
    applied = read(files)
    history = _history(ctx.obj, scope_of(**given))
    gone = [named(word, history.resources) for word in deleted]
    after = changed(history.resources, applied, gone)
    found = simulated(history.traffic, history.resources, after)
    for warning in found.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if form:
        emit(found, form)
    else:
        click.echo(text(found))
    ctx.exit(DENIED if found.newly_denied else 0)


def _history(target: Target, scope: Scope) -> _History:
    from cirri.history.replay import Traffic

    async def work(bus: Bus) -> _History:
        from cirri.model import RESOURCES

        resources = [entry.value for entry in await bus.entries(RESOURCES)]
        return _History(resources, await answered(bus, Traffic(), scope))

    return with_bus(target, work)


def named(word: str, resources: Sequence[Resource]) -> tuple[str, str, str]:
    """Kind, namespace and name of the object that *word* means.  Raises :class:`NothingDeleted`."""
    from cirri.manifests import kind_named

    first, _, name = word.partition("/")
    kind = kind_named(first)
    known = [one for one in resources if kind is not None and one.kind == kind.name]
    found = [one for one in known if name in (one.name, f"{one.namespace}/{one.name}")]
    if len(found) != 1:
        raise NothingDeleted(word, sorted(f"{first}/{one.namespace}/{one.name}" for one in known))
    return found[0].kind, found[0].namespace, found[0].name


def text(found: Simulation) -> str:
    """What would change, for people."""
    parts = []
    for title, effects in (
        ("Would be denied:", found.newly_denied),
        ("Would be allowed:", found.newly_allowed),
        (UNREAD, found.newly_read),
    ):
        if effects:
            parts += [title, _table(effects), ""]
    denied, allowed = len(found.newly_denied), len(found.newly_allowed)
    parts.append(f"{found.asked} different things were seen: {denied} would be denied, {allowed} allowed.")
    if found.otherwise:
        since = "policies or labels have changed since"
        parts.append(f"{found.otherwise} were decided otherwise when they were seen: {since}.")
    return "\n".join(parts)


def _table(effects: Sequence[Effect]) -> str:
    header = ["CLIENT", "SERVER", "PORT", "REQUEST", "PASSED", "STOPPED", "LAST", "WHY"]
    rows: list[list[Cell]] = [
        [
            *map(harmless, (one.client, one.server, one.port, one.request)),
            *map(str, (one.passed, one.stopped)),
            *(age(one.last), one.reason),
        ]
        for one in effects
    ]
    if not any(one.request for one in effects):
        header.pop(3)
        rows = [[*row[:3], *row[4:]] for row in rows]
    return table(header, rows)


@click.command()
@scope_options("24h")
@click.option("--pod", metavar="NAME", help="Only for pods whose name begins so.")
@click.option("-l", "--selector", metavar="LABELS", help="Only for pods that have app=web,tier=front.")
@click.pass_obj
def generate(target: Target, /, *, pod: str | None, selector: str | None, **given: Any) -> None:
    """Write policies that let pass just what was seen, as YAML.

    For each kind of pod in the namespace one CiliumNetworkPolicy: peers by their labels, addresses outside
    by the names that DNS gave, else as they are; requests where proxies read them; in the directions in
    which something was seen.  What was stopped is left out.  Comments say how often and when.
    """
    from cirri.history.generate import generate as generated

    history = _history(target, scope_of(**given))
    namespace = None if given["everywhere"] else given["namespace"]
    config = cluster_name(history.resources)
    made = generated(history.traffic, chooser(namespace, pod or "", selector or ""), config)
    for warning in made.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if not made.text:
        click.echo("Nothing was seen of such pods in this time.", err=True)
        return
    click.echo(made.text, nl=False)
    for warning in doubts(made.text, history):
        click.echo(f"Warning: {warning}", err=True)


def chooser(namespace: str | None, prefix: str, selector: str) -> Callable[[Place, str], bool]:
    """Which pods policies are written for; *namespace* None: of all."""
    from cirri.labels import NAMESPACE_KEY, Label

    wanted = {str(Label.parse(each.strip(), default="k8s")) for each in selector.split(",") if each.strip()}
    if namespace is not None:
        wanted.add(str(Label("k8s", NAMESPACE_KEY, namespace)))

    def chosen(place: Place, name: str) -> bool:
        return wanted <= place.labels and name.partition("/")[2].startswith(prefix)

    return chosen


def cluster_name(resources: Sequence[Resource]) -> str:
    """The name of the cluster whose objects those are."""
    from cirri.whatif.live import world_of

    world, _ = world_of([one for one in resources if one.kind == "ConfigMap"], lambda _: ())
    return world.setting.config.cluster


def doubts(made: str, history: _History) -> list[str]:
    """What of the traffic the policies *made* would stop if they were applied now; [] as it should be."""
    from cirri.history.simulate import changed, simulate
    from cirri.manifests import check_all
    from cirri.manifests.documents import read

    documents, problems = read(["-"], made)
    applied = check_all(documents)
    found = simulate(history.traffic, history.resources, changed(history.resources, applied, ()))
    said = [str(problem) for problem in problems]
    said += (
        f"{one.client} -> {one.server} {one.port} {one.request} would be denied: {one.reason}"
        for one in found.newly_denied
        if one.passed
    )
    return said
