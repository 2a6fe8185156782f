"""``cirri policy explain``: why a connection may begin, or may not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from cirri.cli.bus import with_bus
from cirri.cli.context import Target
from cirri.cli.output import emit, output

if TYPE_CHECKING:
    from cirri.engine.l7 import Request
    from cirri.kv import Bus
    from cirri.model import Ack, Endpoint, Resource
    from cirri.whatif.edits import Change, Edit
    from cirri.whatif.explain import Destination, Report, RuleReport, SideReport
    from cirri.whatif.port import Port
    from cirri.whatif.who import Speaker
    from cirri.whatif.world import World

MANY = 20
"""Rules of one end, from which on not all are shown without -v."""
OTHERS = 3
"""Policies that do not select the subject, as many as are shown without -v."""


def _port(_: click.Context, __: click.Parameter, text: str | None) -> Port | None:
    from cirri.whatif.port import InvalidPort, Port

    try:
        return None if text is None else Port.parse(text)
    except InvalidPort as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("flow", required=False, metavar="[FLOW-UUID]")
@click.option("--from", "source", metavar="WHO", help="Who opens the connection; see above.")
@click.option("--to", "target", metavar="WHO", help="Whom it is for: also a Service.")
@click.option("--name", metavar="NAME", help="Instead of --to: an address that DNS gives for this name.")
@click.option(
    "--port",
    metavar="PORT[/PROTOCOL]",
    callback=_port,
    help="80/TCP, 53/UDP, 9/SCTP; an ICMP type: 8/ICMP, 128/ICMPv6.",
)
@click.option("--method", metavar="METHOD", help="Also ask about an HTTP request; GET if only others say.")
@click.option("--path", metavar="PATH", help="Of the HTTP request, with its query; / if not given.")
@click.option("--host", metavar="HOST", help="Of the HTTP request.")
@click.option("--header", "headers", multiple=True, metavar="NAME: VALUE", help="Of it; repeatable.")
@click.option("--dns", metavar="NAME", help="Also ask about a DNS question for this name.")
@click.option("--sni", metavar="NAME", help="Also ask about TLS that is wanted with this name.")
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    metavar="FILE",
    help="Ask these manifests, not the cluster: a file, a folder or -; repeatable.",
)
@click.option("-n", "--namespace", default="default", show_default=True, help="Of names that say none.")
@click.option("-v", "--verbose", is_flag=True, help="Every policy that does not select an end, too.")
@output
@click.pass_obj
def explain(
    cluster: Target,
    /,
    *,
    flow: str | None,
    source: str | None,
    target: str | None,
    name: str | None,
    port: Port | None,
    files: Sequence[str],
    namespace: str,
    verbose: bool,
    form: str | None,
    **asked: Any,
) -> None:
    """Explain rule by rule why a connection may begin, or may not, and what would change that.

    Both ends are asked: egress of the source, ingress of the destination.  Without -f the objects of the
    cluster are.  A Service is translated to what it leads to and to the port there, as nodes do it.

    With FLOW-UUID that flow is looked up among the stored ones: what was decided then and by which rule,
    and what policies say now.

    \b
    WHO is one of
      [NAMESPACE/]NAME            a pod, or with -f what makes pods (Deployment, ...)
      pod/NAME, svc/NAME          where both have the name
      node/NAME                   a node
      10.0.0.1, 2001:db8::1       an address: of a pod, a node or a Service, or outside the cluster
      identity:12345              whoever has this identity
      app=web,tier=front          whoever has these labels; also reserved:world, reserved:host, ...
      name/api.example.com        an address outside that DNS gives for the name
    """
    from cirri.whatif.explain import explain as explained

    if flow is not None:
        if source or target or name or port or files or any(asked.values()):
            raise click.UsageError("a flow's UUID says all that there is to ask")
        _explain_flow(cluster, flow, form, verbose=verbose)
        return
    if source is None or port is None:
        missing = "--from" if source is None else "--port"
        raise click.UsageError(f"Missing option '{missing}', or the UUID of a flow")
    if (target is None) == (name is None):
        raise click.UsageError("give one of --to and --name")
    target = target if target is not None else f"name/{name}"
    request = _request(**asked)
    state = State() if files else with_bus(cluster, _state)
    words = source, target
    world, speaker, warnings = (
        _from_files(files, words, namespace) if files else _from_cluster(state, words, namespace)
    )
    audited = {
        f"{each.namespace}/{each.pod}" if each.pod else f"node:{each.node}"
        for each in state.endpoints
        if each.audit
    }
    report = explained(world, speaker, source, target, port, request=request, audited=audited)
    for warning in (*warnings, *(() if files else behind_notes(report, world, state))):
        click.echo(f"Warning: {warning}", err=True)
    if form:
        emit(report, form)
    else:
        click.echo(text(report, verbose=verbose))


def _explain_flow(cluster: Target, text_: str, form: str | None, *, verbose: bool) -> None:
    from cirri.cli import explainflow

    found = explainflow.find(cluster, explainflow.uuid_of(text_))
    report = explainflow.report(found)
    if form:
        emit({"flow": found.flow, "now": report}, form)
    else:
        click.echo("\n".join((*explainflow.lines(found.flow), text(report, verbose=verbose))))


def _request(
    *,
    method: str | None,
    path: str | None,
    host: str | None,
    headers: Sequence[str],
    dns: str | None,
    sni: str | None,
) -> Request | None:
    """What is asked over the connection; with *sni* an HTTP request is one inside TLS."""
    from cirri.engine.l7 import DnsQuery, HttpRequest, TlsHello

    http = bool(method or path or host or headers)
    if dns is not None and (http or sni is not None):
        raise click.UsageError("--dns is another question than the one about HTTP or TLS")
    if dns is not None:
        return DnsQuery(dns)
    if not http:
        return None if sni is None else TlsHello(sni)
    pairs = []
    for text in headers:
        key, colon, value = text.partition(":")
        if not colon:
            raise click.BadParameter(f"{text!r} is not NAME: VALUE", param_hint="--header")
        pairs.append((key.strip(), value.strip()))
    return HttpRequest(method or "GET", path or "/", host or "", tuple(pairs), sni or "")


class Asked(NamedTuple):
    """A world to ask about."""

    world: World
    speaker: Speaker
    warnings: list[str]


class State(NamedTuple):
    """What a cluster holds."""

    resources: Sequence[Resource] = ()
    identities: Mapping[int, Sequence[str]] = MappingProxyType({})
    endpoints: Sequence[Endpoint] = ()
    acks: Mapping[str, Ack] = MappingProxyType({})
    compiled: int = 0
    """Highest revision of bucket ``resources`` whose policies are compiled."""


async def _state(bus: Bus) -> State:
    from cirri.cli.identity import all_labels
    from cirri.kv import BucketMissing
    from cirri.model import ACKS, ENDPOINTS, POLICIES, RESOURCES

    resources = [entry.value for entry in await bus.entries(RESOURCES)]
    found = State(resources)
    with suppress(BucketMissing):  # services that were never up
        found = found._replace(identities=await all_labels(bus))
        policies = [entry.value.compiled for entry in await bus.entries(POLICIES)]
        found = found._replace(compiled=max((each.resources for each in policies if each), default=0))
        found = found._replace(endpoints=[entry.value for entry in await bus.entries(ENDPOINTS)])
        found = found._replace(acks={entry.value.node: entry.value for entry in await bus.entries(ACKS)})
    return found


def _from_files(files: Sequence[str], words: Iterable[str], namespace: str) -> Asked:
    from cirri.labels import RESERVED_LABELS
    from cirri.whatif.load import load
    from cirri.whatif.who import Speaker

    world, resources, warnings = load(
        files, {}, lambda found, setting: Speaker(found, RESERVED_LABELS, namespace).described(words, setting)
    )
    return Asked(world, Speaker(resources, RESERVED_LABELS, namespace), warnings)


def _from_cluster(state: State, words: Iterable[str], namespace: str) -> Asked:
    from cirri.labels import RESERVED_LABELS
    from cirri.whatif.live import world_of
    from cirri.whatif.who import Speaker

    speaker = Speaker(state.resources, {**RESERVED_LABELS, **state.identities}, namespace)
    world, warnings = world_of(state.resources, lambda setting: speaker.described(words, setting))
    return Asked(world, speaker, warnings)


def behind_notes(report: Report, world: World, state: State) -> Iterator[str]:
    """Where the cluster is not yet what its objects say, of which the explanation speaks."""
    names = {report.source, *(name for one in report.destinations for name in (one.target, *one.also))}
    known = {f"{each.namespace}/{each.pod}": each for each in state.endpoints}
    for name in sorted(
        names & {f"{each.namespace}/{each.name}" for each in state.resources if each.kind == "Pod"}
    ):
        endpoint = known.get(name)
        if endpoint is None:
            yield f"{name} is not connected yet: no node has an endpoint for it"
            continue
        if set(state.identities.get(endpoint.identity, ())) != world.labels(world.parties[name]):
            yield f"{name} still has identity {endpoint.identity or 'none'}, whose labels are others"
        ack = state.acks.get(endpoint.node)
        there = ack.policy_revision if ack is not None else 0
        if there < state.compiled:
            yield f"{endpoint.node}, where {name} is, has policies up to {there} of {state.compiled} in force"


def text(report: Report, *, verbose: bool) -> str:
    """The explanation for people."""
    lines = [f"{report.source} -> {report.target} {report.port}: {_VERDICTS[report.verdict]}", *report.notes]
    for one in report.destinations:
        lines += _destination(report, one, verbose=verbose)
    return "\n".join(lines)


_VERDICTS = {"allow": "ALLOWED", "deny": "DENIED", "mixed": "ALLOWED TO SOME"}


def _destination(report: Report, one: Destination, *, verbose: bool) -> Iterator[str]:
    if len(report.destinations) > 1:
        yield ""
        yield f"To {', '.join((one.target, *one.also))} {one.port}: {_VERDICTS[one.verdict]}"
    yield from one.unasked
    for side in one.sides:
        yield from _side(side, verbose=verbose)


def _side(side: SideReport, *, verbose: bool) -> Iterator[str]:
    yield ""
    word = "AUDITED" if side.audited else _VERDICTS[side.verdict]
    yield f"{side.direction.capitalize()} of {side.subject}: {word}"
    if side.rule or side.audited:
        yield f"  {side.says.partition(': ')[2]}"
    if side.request:
        yield f"  Request {'passes' if side.verdict == 'allow' else 'does not pass'}: {side.request}"
    yield f"  {_enforcement(side)}"
    rules = side.rules if verbose else _telling(side.rules)
    for rule in rules:
        yield from _rule(rule)
    if len(rules) < len(side.rules):
        yield f"  {len(side.rules) - len(rules)} more rules do not match; -v shows them"
    shown = side.others if verbose else [other for other in side.others if not other.elsewhere][:OTHERS]
    for other in shown:
        yield f"  not for it {other.policy}"
        yield f"      its subject: {other.why}"
    if len(shown) < len(side.others):
        yield f"  {_more(len(side.others) - len(shown), bool(shown))} not for it; -v shows why"
    if side.nearest and len(side.rules) > 1:
        yield f"  Nearest miss: {side.nearest}"
    yield from _changes(side.changes)


def _telling(rules: Sequence[RuleReport]) -> Sequence[RuleReport]:
    """Those of *rules* that match or nearly do, if there are many."""
    if len(rules) <= MANY:
        return rules
    near = sorted((rule for rule in rules if not rule.matched), key=lambda rule: rule.failed)[: MANY // 2]
    return [rule for rule in rules if rule.matched or rule in near]


def _more(count: int, after: bool) -> str:
    return f"{count} {'more ' if after else ''}{'policy is' if count == 1 else 'policies are'}"


def _enforcement(side: SideReport) -> str:
    by = ", ".join(side.enforced_by)
    if side.enforced:
        return f"Isolated by {by}: what no rule allows is dropped"
    return f"Open, {by or f'no policy isolates it for {side.direction}'}"


def _rule(rule: RuleReport) -> Iterator[str]:
    words = ["only watched"] if rule.audit else []
    words += [f"{rule.proxy} proxy"] if rule.proxy else []
    words += [f"authentication {rule.authentication}"] if rule.authentication else []
    aside = f" ({', '.join(words)})" if words else ""
    yield f"  {'match   ' if rule.matched else 'no match'}   {rule.action} {rule.rule}{aside}"
    yield from (f"      {each}" for each in rule.why)
    if rule.matched:
        yield from (f"      the proxy lets pass {each}" for each in rule.requests)


def _changes(changes: Sequence[Change]) -> Iterator[str]:
    for index, change in enumerate(changes):
        yield "  Smallest change that would allow it:" if index == 0 else "  or:"
        for edit in change.edits:
            yield from (f"      {line}" for line in _edit(edit))


def _edit(edit: Edit) -> list[str]:
    import yaml

    if edit.op == "remove":
        return [f"remove {edit.path} from {edit.object}" if edit.path else f"delete {edit.object}"]
    if edit.path.endswith("metadata.labels"):
        new, now = (",".join(f"{k}={v}" for k, v in (m or {}).items()) for m in (edit.value, edit.before))
        return [f"label {new} on {edit.object}{f' (now {now})' if now else ''}, in {edit.path}"]
    value = edit.value if not edit.path else [edit.value]
    shown = yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=100).rstrip().splitlines()
    head = f"add to {edit.path} of {edit.object}:" if edit.path else "apply a new policy:"
    return [head, *(f"  {line}" for line in shown)]
