"""``cirri observe``: flows and events of the cluster, from a server of the observer API."""

from __future__ import annotations

import heapq
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

import click

from cirri.cli import observeflags as flags
from cirri.cli.context import NoContext, Target
from cirri.cli.flowevents import event_details
from cirri.cli.flowfilters import BadFilter, Filters, filters
from cirri.cli.flowlines import Form, Printer, Style, node_status
from cirri.cli.flowprocess import processed
from cirri.cli.flowrequest import BadSelection, Selection, mask, messages, raw, raw_text, request
from cirri.cli.flowtime import length_s
from cirri.cli.observer import Observer, Server, connected, locate

OBSERVER = "observer.Observer"
WAITING_S = 1.0
"""Silence after which somebody at a terminal is told what is waited for."""


@contextmanager
def connection(target: Target, options: Mapping[str, Any]) -> Iterator[Observer]:
    """A connection to the server that *options* and the context mean."""
    with connected(chosen_server(target, options), length_s(options["timeout"])) as observer:
        yield observer


def chosen_server(target: Target, options: Mapping[str, Any]) -> Server:
    """The server that *options* and the context mean."""
    certificate, key = options["tls_client_cert_file"], options["tls_client_key_file"]
    if bool(certificate) != bool(key):
        raise click.UsageError("--tls-client-cert-file and --tls-client-key-file belong together")
    source = click.get_current_context().find_root().get_parameter_source("name")
    by_itself = source in (None, click.core.ParameterSource.DEFAULT)
    server = locate(target, server=options["server"], node=options.get("node", ""), default=by_itself)
    if not (server.tls or options["tls"] or certificate):
        return server
    return replace(
        server,
        tls=True,
        insecure=options["tls_allow_insecure"],
        ca=tuple(options["tls_ca_cert_files"]),
        certificate=certificate,
        key=key,
        name=options["tls_server_name"],
    )


def style(options: Mapping[str, Any], *, terminal: bool) -> Style:
    """How *options* want it to look; colors by themselves only on a *terminal*."""
    output: str = options["output"]
    form: Form = "json" if output == "jsonpb" else output  # type: ignore[assignment]
    if form == "table" and options["follow"]:
        raise BadSelection("table output format is not compatible with follow mode")
    when = options.get("color", "never")
    colors = when == "always" or (when == "auto" and terminal and not os.environ.get("NO_COLOR"))
    return Style(
        form=form,
        time=options["time_format"],
        names=options.get("ip_translation", True) and not options.get("numeric", False),
        node=options["print_node_name"],
        policies=options.get("print_policy_names", False),
        processes=options.get("processes", False),
        colors=colors and form in ("compact", "dict"),
    )


def patient(answers: Iterable[Any], address: str) -> Iterator[Any]:
    """*answers*; somebody at a terminal is told if there are none for a while."""
    timer = threading.Timer(
        WAITING_S, click.echo, (f"Waiting for {address} to tell something; Ctrl-C ends",), {"err": True}
    )
    if sys.stderr.isatty():
        timer.start()
    try:
        for answer in answers:
            if "node_status" not in answer.DESCRIPTOR.fields_by_name or not answer.HasField("node_status"):
                timer.cancel()
            yield answer
    finally:
        timer.cancel()


def _filters(options: Mapping[str, Any]) -> Filters:
    given = click.get_current_context().meta[flags.GIVEN]
    try:
        found = filters(given)
        allow, deny = (raw(name, options[name]) for name in ("allowlist", "denylist"))
        whole = Filters(found.allow + allow, found.deny + deny)
        for some in whole:
            messages(some)
    except BadFilter as error:
        raise click.UsageError(str(error)) from error
    return whole


def _selection(options: Mapping[str, Any]) -> Selection:
    return Selection(**{name: options[name] for name in Selection.__dataclass_fields__})


def show_flows(target: Target, **options: Any) -> None:
    """Ask for flows and print them."""
    found, shown = _filters(options), style(options, terminal=sys.stdout.isatty())
    if options["print_raw_filters"]:
        click.echo(raw_text(found))
        return
    from cirri.hubble.messages import GetFlowsRequest

    path, silent = options["input_file"], options["silent_errors"]
    asked = request(GetFlowsRequest, _selection(options), time.time_ns(), from_file=bool(path))
    asked.whitelist.extend(messages(found.allow))
    asked.blacklist.extend(messages(found.deny))
    fields = mask(
        options["field_mask"],
        shown.form,
        visible=options["use_default_field_masks"],
        policies=shown.policies,
    )
    if fields:  # an empty mask may mean: no field at all
        asked.field_mask.paths.extend(fields)
    chosen = processed(options, asked)
    with _printing(shown) as printer:
        if path:
            from cirri.cli.flowfile import flows_of

            _print_flows(chosen(flows_of(path, asked)), printer, silent=silent)
            return
        with connection(target, options) as observer:
            answers = patient(observer.stream(OBSERVER, "GetFlows", asked), observer.server.address)
            _print_flows(chosen(answers), printer, silent=silent)


@contextmanager
def _printing(shown: Style) -> Iterator[Printer]:
    """A printer; Ctrl-C is an end like any other, and what it has kept comes last."""
    printer = Printer(shown)
    with suppress(KeyboardInterrupt):
        yield printer
    if rest := printer.rest():
        click.echo(rest)


def _print_flows(answers: Iterable[Any], printer: Printer, *, silent: bool) -> None:
    for answer in answers:
        match answer.WhichOneof("response_types"):
            case "flow":
                text = printer.flow(answer)
            case "lost_events":
                text = printer.lost(answer)
            case "node_status":
                if (said := node_status(answer, printer.style)) and not silent:
                    click.echo(said, err=True)
                continue
            case _:
                continue
        if text:
            click.echo(text, color=printer.style.colors or None)


def show_events(target: Target, **options: Any) -> None:
    """Ask for events of agents and print them."""
    from cirri.hubble.messages import GetAgentEventsRequest

    shown = style(options, terminal=False)
    asked = request(GetAgentEventsRequest, _selection(options), time.time_ns())
    nodes = nodes_of(target, options)
    if asked.follow and len(nodes) > 1:
        raise BadSelection(f"which node? Events are followed on one: --node {nodes[0]}")
    with _printing(shown) as printer, ExitStack() as stack:
        observers = [
            stack.enter_context(connection(target, {**options, "node": node}))
            for node in nodes or [options["node"]]
        ]
        streams = [each.stream(OBSERVER, "GetAgentEvents", asked) for each in observers]
        answers = heapq.merge(*streams, key=lambda answer: answer.time.ToNanoseconds())
        for answer in patient(answers, observers[0].server.address):
            if text := printer.event(answer, event_details(answer.agent_event, shown.time)):
                click.echo(text)


def nodes_of(target: Target, options: Mapping[str, Any]) -> list[str]:
    """The cluster's nodes, for what a relay does not tell; [] if one server was named."""
    if options["server"] or options["node"]:
        return []
    try:
        return sorted(target.context().bpffs)
    except NoContext:
        return []


def _flow_params() -> list[click.Parameter]:
    return [
        *flags.selectors(), *flags.flow_filters(), *flags.process_filters(), *flags.raw_filters(),
        *flags.formatting(), *flags.server(), *flags.other(), *flags.silence(),
    ]  # fmt: skip


FLOWS_SAY = """What went over the network, and what was decided about it.

    A flow is shown if it matches every filter; of a filter that is given several times, one value has to
    match.  --not turns the next filter around.

    \b
      cirri observe -f                                       as it happens
      cirri observe --pod deathstar --protocol http          requests and answers
      cirri observe --verdict DROPPED --print-policy-names   what was refused, and by what
      cirri observe --since 1h --to-fqdn '*.github.com'      an hour back, from what is stored
      cirri observe --namespace default --not --port 53      of a namespace, without DNS
      cirri observe -o json --last 1000 > flows.json         to be read with --input-file
"""


@click.pass_context
def _observe(ctx: click.Context, /, **options: Any) -> None:
    if ctx.invoked_subcommand is None:
        show_flows(ctx.obj, **options)
        return
    given = [
        name for name in options if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given or ctx.meta[flags.GIVEN]:
        raise click.UsageError(f"options of `{ctx.invoked_subcommand}` stand behind it")


observe = flags.FlowGroup(
    "observe",
    params=_flow_params(),
    callback=_observe,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND]",
    help=FLOWS_SAY,
)
observe.add_command(
    flags.FlowCommand(
        "flows",
        params=_flow_params(),
        callback=click.pass_obj(show_flows),
        help=FLOWS_SAY,
        short_help="Flows; the default.",
    )
)
observe.add_command(
    flags.FlowCommand(
        "agent-events",
        params=[
            *flags.selectors(),
            *flags.formatting(flows=False),
            *flags.server(),
        ],
        callback=click.pass_obj(show_events),
        help="What happened to the nodes' endpoints, addresses and policies.",
        short_help="Events of nodes.",
    )
)
