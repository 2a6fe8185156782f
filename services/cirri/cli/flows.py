"""``cirri flows``: questions about what the network did, each answered by one command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from cirri.cli.bus import with_bus
from cirri.cli.context import Target
from cirri.cli.flowhistory import answered, ask_stream, scope_of, scope_options
from cirri.cli.output import Cell, age, emit, output, table

if TYPE_CHECKING:
    from cirri.history.question_traffic import Block
    from cirri.kv import Bus
    from cirri.model import Resource
    from cirri.model.flows import RuleRef
    from cirri.whatif.explain import Destination

SHOWN = 40
"""Lines of a table without --limit."""
EXPLAINED = 40
"""Blocked connections, of which it is said what would have to be otherwise."""

Columns = Mapping[str, Callable[[Any], Cell]]

_limit = click.option(
    "--limit", type=click.IntRange(0), default=SHOWN, show_default=True, metavar="N",
    help="Lines of the table, the most important first; 0: all.",
)  # fmt: skip


@click.group()
def flows() -> None:
    """Ask what the network did: one command for each question.

    Answers come from the stored flows of the whole cluster, so they reach back as far as those do.
    """


def _said(*names: str) -> Columns:
    """Columns with the fields *names*."""

    def cell(name: str) -> Callable[[Any], Cell]:
        return lambda one: str(getattr(one, name))

    return {name.replace("_", " ").upper(): cell(name) for name in names}


_ENDS = _said("client", "server")
_PORT: Columns = {"PORT": lambda one: f"{one.port}/{one.protocol}"}
_LAST: Columns = {"LAST": lambda one: age(one.last) if one.last else ""}


def _codes(codes: Mapping[str, int]) -> str:
    return ", ".join(f"{code if code != '0' else 'none'}: {count}" for code, count in codes.items())


UNREAD = "Requests are read where a policy asks for it (toPorts with rules.http or rules.dns)."


def _question(
    name: str,
    path: str,
    columns: Columns,
    text: str,
    *,
    since: str = "1h",
    argument: str = "",
    hint: str = "",
) -> None:
    """Add the command *name*, which puts the question *path* (MODULE.CLASS of ``cirri.history``)."""

    def run(target: Target, /, *, form: str | None, limit: int, **given: Any) -> None:
        from importlib import import_module

        module, _, kind = path.partition(".")
        words = [given.pop("word")] if argument else []
        question = getattr(import_module(f"cirri.history.{module}"), kind)(*words)
        found = ask_stream(target, question, scope_of(**given))
        namespace = "" if given["everywhere"] else given["namespace"]
        show(found, columns, form, limit, namespace=namespace, hint=hint)

    if argument:
        run = click.argument("word", metavar=argument)(run)
    options = scope_options(since)(_limit(output(click.pass_obj(run))))
    flows.command(name, help=text, short_help=text.partition("?")[0] + "?")(options)


def show(
    found: Sequence[Any],
    columns: Columns,
    form: str | None,
    limit: int,
    *,
    namespace: str,
    hint: str = "",
) -> None:
    """Print an answer about *namespace* ("": all); *hint*: why there may be none."""
    if form:
        emit(found, form)
        return
    if not found:
        where = f" with an end in namespace {namespace} (-A asks about all)" if namespace else ""
        click.echo(" ".join(filter(None, (f"Nothing of that kind was seen in this time{where}.", hint))))
        return
    shown = found[: limit or None]
    click.echo(table(list(columns), [[harmless(cell(one)) for cell in columns.values()] for one in shown]))
    if len(shown) < len(found):
        click.echo(f"... and {len(found) - len(shown)} more; --limit 0 shows all")


_question(
    "map",
    "question_traffic.Map",
    {**_ENDS, **_PORT, **_said("connections", "requests", "denied", "packets", "bytes"), **_LAST},
    "Who talks to whom, how often, and at which port?  By workload: the graph of dependencies.",
)
_question(
    "http-calls",
    "question_http.HttpCalls",
    {
        **_ENDS,
        **_said("method", "path", "requests", "refused"),
        "CODES": lambda one: _codes(one.codes),
        **_LAST,
    },
    "Which HTTP calls are made?  Of connections whose requests a proxy reads (a policy with rules.http).",
    hint=UNREAD,
)
_question(
    "failing",
    "question_failing.Failing",
    {**_ENDS, **_PORT, **_said("layer", "problem", "count"), **_LAST},
    "Does communication fail, and where: policy, network, DNS, TCP or HTTP?",
)
_question(
    "dns-problems",
    "question_dns.DnsProblems",
    {
        **_said("client", "name", "problem"),
        "TYPES": lambda one: ",".join(one.types),
        **_said("count", "asked", "server"),
        **_LAST,
    },
    "Which lookups failed lately?  Of pods whose lookups the DNS proxy reads (a policy with rules.dns), "
    "without the names that resolvers make of others by their search lists.",
    since="5m",
    hint=UNREAD,
)
_question(
    "interrupted",
    "question_tcp.Interrupted",
    {
        **_ENDS,
        **_said("port", "connections", "refused", "timed_out", "reset_by_client", "reset_by_server"),
        **_LAST,
    },
    "Which TCP connections were refused, timed out or were broken off?",
)
_question(
    "unanswered",
    "question_tcp.Unanswered",
    {**_ENDS, **_said("port", "connections", "unanswered", "dropped", "percent", "per_minute"), **_LAST},
    "How many TCP connections (SYN) does nobody answer?  DROPPED: those of them that Cirri stopped.",
)
_question(
    "http-errors",
    "question_http.HttpErrors",
    {
        **_said("server", "answers"),
        "4XX": lambda one: f"{one.client_errors} ({one.client_error_percent} %)",
        "5XX": lambda one: f"{one.server_errors} ({one.server_error_percent} %)",
        "REFUSED BY POLICY": lambda one: str(one.refused),
        "CODES": lambda one: _codes(one.codes),
        **_LAST,
    },
    "What is the rate of 4xx and 5xx answers, of each server and of the cluster (*)?",
    hint=UNREAD,
)
_question(
    "latency",
    "question_http.Latency",
    {
        **_ENDS,
        **_said("port", "protocol", "answers"),
        **{
            f"{name.upper()} MS": _said(f"{name}_ms")[f"{name.upper()} MS"]
            for name in ("p50", "p95", "p99", "max")
        },
    },
    "How long do answers take (50, 95 and 99 percent of them), between whom the longest?",
    hint=UNREAD,
)
_question(
    "external",
    "question_traffic.External",
    {
        **_said("source"),
        "NAMES": lambda one: ",".join(one.names),
        **_said("target"),
        **_PORT,
        **_said("connections", "denied"),
        **_LAST,
    },
    "What was reached from outside the cluster, and by whom?",
)
_question(
    "resolved",
    "question_dns.WhoResolved",
    {
        **_said("client", "name", "lookups"),
        "ADDRESSES": lambda one: list(one.addresses),
        "PROBLEMS": lambda one: _codes(one.problems),
        **_LAST,
    },
    "Who looked up NAME?  It may have * in it, as in matchPattern.",
    argument="NAME",
    hint=UNREAD,
)


def harmless(cell: Cell) -> Cell:
    """*cell*, which may have words of whoever talked, without what would steer a terminal."""
    from cirri.cli.flowlines import safe

    return safe(cell) if isinstance(cell, str) else [safe(each) for each in cell]


@flows.command("blocked")
@scope_options("1h")
@_limit
@output
@click.pass_obj
def blocked(target: Target, /, *, form: str | None, limit: int, **given: Any) -> None:
    """What does policy block, and by which rule?

    Where no rule allows it, the rule that is nearest to allowing it is shown, with what it asks for: of
    the policies that there are now.
    """
    from cirri.history.question_traffic import Blocked

    question = Blocked()

    async def work(bus: Bus) -> tuple[list[Block], list[Resource]]:
        from cirri.model import RESOURCES

        found = await answered(bus, question, scope_of(**given))
        return found, [entry.value for entry in await bus.entries(RESOURCES)] if found else []

    found, resources = with_bus(target, work)
    why = reasons(found, question, resources)
    if form:
        emit([{**_plain(one), "why": why.get(one.uuid, "")} for one in found], form)
        return
    columns: Columns = {
        **_ENDS,
        **_PORT,
        **_said("direction"),
        "REASON": lambda one: [one.reason, one.request] if one.request else one.reason,
        **_said("count"),
        **_LAST,
        "WHY": lambda one: why.get(one.uuid, "").split("\n"),
    }
    show(found, columns, None, limit, namespace="" if given["everywhere"] else given["namespace"])


def _plain(one: Block) -> dict[str, Any]:
    from cirri.cli.output import plain

    found: dict[str, Any] = plain(one)
    return found


def reasons(found: Sequence[Block], question: Any, resources: Sequence[Resource]) -> dict[str, str]:
    """By UUID: the rule that blocks each of *found*, or the one that is nearest to allowing it."""
    from cirri.errors import CirriError
    from cirri.history.why import explanations

    why = {one.uuid: f"denied by {rule_text(one.rule)}" for one in found if one.rule is not None}
    about = question.asked()
    open_ = {one.uuid: one for one in found[:EXPLAINED] if one.uuid not in why}
    try:
        told = explanations(
            {uuid: about[uuid] for uuid in open_},
            {uuid: (one.client, one.server) for uuid, one in open_.items()},
            resources,
        )
    except CirriError as error:  # a policy in the cluster that means nothing, or two that contradict
        click.echo(f"Warning: why is not told: {error}", err=True)
        return why
    for uuid, one in open_.items():
        why[uuid] = nearest(told[uuid], one.direction)
    return why


def nearest(told: Destination, direction: str) -> str:
    """What blocks the connection *told* about in *direction*, in a few lines."""
    side = next((each for each in told.sides if each.direction == direction), None)
    if side is None:
        return ""
    if side.verdict == "allow":
        return "policy would allow it now"
    if side.nearest:
        return "\n".join((f"nearest: {side.nearest}", *side.missing))
    if side.request:
        return side.request
    return side.says.partition(": ")[2]


def rule_text(rule: RuleRef) -> str:
    """``CiliumNetworkPolicy default/rule1 spec.ingress[0]``."""
    name = f"{rule.namespace}/{rule.name}" if rule.namespace else rule.name
    return " ".join(filter(None, (rule.kind, name, rule.section)))
