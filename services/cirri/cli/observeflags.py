"""The flags of ``cirri observe``: those of ``hubble observe``, in the sections of its help."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from cirri.cli import flowfilters as filters
from cirri.cli.flowfilters import Given
from cirri.cli.flowlines import FORMS
from cirri.cli.flowrequest import SHOWN
from cirri.cli.flowtime import DEFAULT, FORMATS

GIVEN = "cirri.cli.observe.given"
"""In ``ctx.meta``: the filter flags in the order in which they stand on the command line."""
SELECTORS, RAW, FORMATTING, SERVER, OTHER = (
    "Which flows by time and number", "Filters in full", "Format", "Server", "Other",
)  # fmt: skip
FILTERS = "Filters (of either end; --from-: of the source, --to-: of the destination)"
_NAMES = "[NAMESPACE/]NAME; without a namespace, `default`"


class SectionOption(click.Option):
    """An option that stands in a section of the help."""

    def __init__(self, *declarations: str, section: str, **settings: Any) -> None:
        self.section = section
        super().__init__(declarations, **settings)

    def get_help_extra(self, ctx: click.Context) -> Any:
        """Without ranges: that counts are not negative goes without saying."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra


class FilterOption(SectionOption):
    """A flag that adds to a filter; :data:`GIVEN` keeps the order, which ``--not`` needs."""

    def __init__(
        self, flag: str, says: str, *, short: str = "", value: str = "", sided: bool = False, **settings: Any
    ) -> None:
        self.flag = flag
        self.takes_value = bool(value)
        self.sided = sided
        kind: dict[str, Any] = {"multiple": True, "metavar": value} if value else {"count": True}
        declarations = (f"--{flag}", *([short] if short else []), f"filter_{flag.replace('-', '_')}")
        super().__init__(*declarations, section=FILTERS, help=says, expose_value=False, **kind, **settings)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Nothing for ``--from-X`` and ``--to-X``: they stand in the line of ``--X``."""
        record = super().get_help_record(ctx)
        if record is None or not self.sided:
            return record
        if self.flag.startswith(("from-", "to-")):
            return None
        flags, says = record
        return flags.replace(f"--{self.flag}", f"--[from-|to-]{self.flag}"), says


class FlowCommand(click.Command):
    """A command whose filter flags have an order, and whose help has sections."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; see :data:`GIVEN`."""
        if not ctx.resilient_parsing:  # a shell asks how half a line may go on
            values, _, order = self.make_parser(ctx).parse_args(args=list(args))
            ctx.meta[GIVEN] = list(_in_order(values, order))
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, section by section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(param, "section", OTHER), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


class FlowGroup(FlowCommand, click.Group):
    """The same with subcommands."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The subcommands first: the options are many."""
        click.Group.format_commands(self, ctx, formatter)
        super().format_options(ctx, formatter)


def _in_order(values: dict[str, Any], order: Sequence[click.Parameter]) -> Iterator[Given]:
    """The filter flags as they were given.  Raises :class:`click.UsageError` for a lost ``--not``."""
    left = {name: iter(value) for name, value in values.items() if isinstance(value, (list, tuple))}
    negated = False
    for param in order:
        if not isinstance(param, FilterOption):
            continue
        if param.flag == "not":
            if negated:
                raise click.UsageError("--not stands twice before one filter")
            negated = True
            continue
        value = str(next(left[param.name or ""])) if param.takes_value else ""
        yield Given(param.flag, value, negated)
        negated = False
    if negated:
        raise click.UsageError("--not stands at the end: it belongs before the filter that it turns around")


def _completed(words: Iterable[str]) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    known = tuple(words)

    def complete(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in known if word.startswith(begun)]

    return complete


def _types() -> list[str]:
    points = [f"trace:{point}" for point in filters.TRACE_POINTS]
    return [name for name in filters.EVENT_TYPES if name not in ("debug", "agent", "recorder")] + points


def selectors() -> list[click.Parameter]:
    """How far back, and how many."""
    when = "a duration back from now (90s, 5m, 1h30m) or a date (2026-01-31, 2026-01-31T12:00:00Z)"
    how = {"section": SELECTORS}
    return [
        SectionOption("--follow", "-f", is_flag=True, help="Go on with new ones until Ctrl-C.", **how),
        SectionOption("--last", type=click.IntRange(min=0), default=0, metavar="N",
                      help=f"The newest N; a Hubble relay gives N of each node.  [default: {SHOWN}]", **how),
        SectionOption("--first", type=click.IntRange(min=0), default=0, metavar="N",
                      help="The oldest N; a Hubble relay gives N of each node.", **how),
        SectionOption("--all", "everything", is_flag=True, help="All that are kept: add filters.", **how),
        SectionOption("--since", default="", metavar="TIME", help=f"Not before TIME: {when}.", **how),
        SectionOption("--until", default="", metavar="TIME", help="Not after TIME.", **how),
    ]  # fmt: skip


def _either(what: str, says: str, value: str = "", short: str = "") -> list[click.Parameter]:
    """``--X``, ``--from-X``, ``--to-X``; *says* describes the end that is meant."""
    complete = _completed(filters.RESERVED if what == "identity" else ())
    shorts = {what: short}
    return [
        FilterOption(flag, says, short=shorts.get(flag, ""), value=value, sided=True, shell_complete=complete)
        for flag in (what, f"from-{what}", f"to-{what}")
    ]


def flow_filters() -> list[click.Parameter]:
    """What flows have to be like."""
    return [
        FilterOption("not", "Turn the next filter around: flows that match it are left out."),
        *_either("pod", f"A pod whose name begins so, {_NAMES}.", "POD"),
        *_either("namespace", "Anything in this namespace.", "NAMESPACE", "-n"),
        *_either("all-namespaces", "Names of pods and Services without a namespace mean any.", short="-A"),
        *_either("label", "An endpoint with this label, e.g. `app=web`, `reserved:world`.", "LABEL", "-l"),
        *_either("service", f"Addressed as a Service whose name begins so, {_NAMES}.", "SERVICE"),
        *_either("workload", "A pod of this Deployment, DaemonSet, ...", "[KIND/]NAME"),
        *_either("identity", "This identity: a number or a name (`world`, `host`).", "IDENTITY"),
        *_either("ip", "This address, or one of this CIDR.", "IP"),
        FilterOption("snat-ip", "The source was translated to this address.", value="IP"),
        *_either("port", "This port.", "PORT"),
        *_either("fqdn", "Known by this DNS name; `*` stands for any letters.", "NAME"),
        *_either("cluster", "An endpoint of this cluster.", "CLUSTER"),
        FilterOption("protocol", "An L4 or L7 protocol: tcp, udp, icmp, http, dns, ...", value="NAME",
                     shell_complete=_completed(filters.PROTOCOLS)),
        FilterOption("tcp-flags", "TCP packets with these flags, e.g. `syn,ack`.", value="FLAGS",
                     shell_complete=_completed(flag.lower() for flag in filters.TCP_FLAGS)),
        FilterOption("type", "What was seen: l7, drop, policy-verdict, trace, or e.g. trace:to-endpoint.",
                     short="-t", value="TYPE[:SUBTYPE]", shell_complete=_completed(_types())),
        FilterOption("verdict", f"One of {', '.join(filters.VERDICTS)}.", value="VERDICT",
                     shell_complete=_completed(filters.VERDICTS)),
        FilterOption("drop-reason-desc", "Why a packet was dropped, e.g. POLICY_DENIED.", value="REASON"),
        FilterOption("traffic-direction", "ingress or egress, as seen by the pod.", value="DIRECTION",
                     shell_complete=_completed(("ingress", "egress"))),
        FilterOption("http-status", "The answer's status, or how it begins: `404`, `5+`.", value="STATUS"),
        FilterOption("http-method", "The request's method.", value="METHOD",
                     shell_complete=_completed(("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"))),
        FilterOption("http-path", "A regular expression that the request's path matches.", value="REGEX"),
        FilterOption("http-url", "A regular expression that the request's URL matches.", value="REGEX"),
        FilterOption("http-header", "A header of the request.", value="NAME:VALUE"),
        FilterOption("ipv4", "Only IPv4.", short="-4"),
        FilterOption("ipv6", "Only IPv6.", short="-6"),
        FilterOption("ip-version", "v4, v6 or none.", value="VERSION",
                     shell_complete=_completed(("none", "v4", "v6"))),
        FilterOption("node-name", "Seen by this node; `*` stands for any letters.", value="NODE"),
        FilterOption("node-label", "Seen by a node with this label.", value="LABEL"),
        FilterOption("interface", "Seen at this device.", value="NAME"),
        FilterOption("uuid", "The flow with this identifier.", value="UUID"),
        FilterOption("trace-id", "Requests of this trace.", value="ID"),
        FilterOption("ip-trace-id", "Packets with this trace number in their IP options.", value="N"),
        FilterOption("encrypted", "Only what was encrypted between nodes."),
        FilterOption("unencrypted", "Only what was not."),
        FilterOption("cel-expression", "A CEL expression over the flow.", value="CEL"),
    ]  # fmt: skip


def process_filters() -> list[click.Parameter]:
    """Of what the API has no filters for; they are applied to its answers."""
    return [
        SectionOption("--process-binary", multiple=True, metavar="REGEX", section=FILTERS,
                      help="A program behind one of the ends whose path has this."),
        SectionOption("--process-exec-id", multiple=True, metavar="EXEC_ID", section=FILTERS,
                      help="This program behind one of the ends, by its number in `cirri events -o json`."),
    ]  # fmt: skip


def raw_filters() -> list[click.Parameter]:
    """Filters as the API has them."""
    return [
        SectionOption("--allowlist", multiple=True, metavar="JSON", section=RAW, envvar="HUBBLE_ALLOWLIST",
                      help="Show what matches this filter, too; as --print-raw-filters prints it."),
        SectionOption("--denylist", multiple=True, metavar="JSON", section=RAW, envvar="HUBBLE_DENYLIST",
                      help="Leave out what matches this filter."),
        SectionOption("--print-raw-filters", is_flag=True, section=RAW, help="Show the filters, ask nobody."),
    ]  # fmt: skip


def formatting(*, flows: bool = True) -> list[click.Parameter]:
    """How it is shown; some of it is about *flows* alone."""
    how = {"section": FORMATTING}
    found: list[click.Parameter] = [
        SectionOption("--output", "-o", type=click.Choice(FORMS), default="compact", show_default=True,
                      help="A line each, names and values, or JSON as the API says it.", **how),
        SectionOption("--print-node-name", is_flag=True, help="Say which node saw it.", **how),
        SectionOption("--time-format", type=click.Choice(list(FORMATS), case_sensitive=False), metavar="NAME",
                      default=DEFAULT, show_default=True, help=f"{', '.join(FORMATS)}; UTC.", **how),
    ]  # fmt: skip
    if flows:
        found += [
            SectionOption("--print-policy-names", is_flag=True, help="Say which policies decided.", **how),
            SectionOption("--process", "processes", is_flag=True,
                          help="Say which program is behind each end; `?`: it is not known.", **how),
            SectionOption("--ip-translation", type=bool, is_flag=False, flag_value="true", default=True,
                          help="Names of pods, Services and sites instead of addresses.  [default: true]",
                          metavar="[=false]", **how),
            SectionOption("--numeric", is_flag=True, help="The same as --ip-translation=false.", **how),
            SectionOption("--color", type=click.Choice(["auto", "always", "never"]), default="auto",
                          show_default=True, help="auto: on a terminal.", **how),
        ]  # fmt: skip
    return found


def other() -> list[click.Parameter]:
    """The rest, about flows."""
    return [
        SectionOption("--input-file", metavar="FILE", default="", section=OTHER,
                      help="Read flows from FILE (`-o json` wrote it) instead of a server; `-`: from stdin."),
        SectionOption("--field-mask", metavar="FIELDS", section=OTHER, multiple=True,
                      help="With -o json: ask for these fields alone (time,source.pod_name,verdict)."),
        SectionOption("--use-default-field-masks", is_flag=True, section=OTHER,
                      help="Ask for no more than is shown."),
    ]  # fmt: skip


def silence() -> list[click.Parameter]:
    """Whether to speak of nodes that are away."""
    return [SectionOption("--silent-errors", "-s", is_flag=True, section=OTHER,
                          help="Say nothing of nodes that do not answer.")]  # fmt: skip


def server(*, node: bool = True) -> list[click.Parameter]:
    """Whom to ask."""

    def option(name: str, says: str, **settings: Any) -> SectionOption:
        variable = f"HUBBLE_{name.removeprefix('--').replace('-', '_').upper()}"
        return SectionOption(name, section=SERVER, help=says, envvar=variable, **settings)

    nodes = [SectionOption("--node", metavar="NODE", default="", section=SERVER,
                           help="Ask this node of the cluster itself.")] if node else []  # fmt: skip
    return [
        *nodes,
        option("--server", "A server of the observer API: HOST:PORT, tls://HOST:PORT or unix:///PATH.  "
               "[default: the cluster's relay, else localhost:4245]", default="", metavar="ADDRESS"),
        option("--timeout", "How long connecting may take.", default="5s", metavar="TIME", show_default=True),
        option("--tls", "Speak TLS.", is_flag=True),
        option("--tls-allow-insecure", "Take whatever certificate the server has.", is_flag=True),
        option("--tls-ca-cert-files", "Authorities; repeatable.", multiple=True, metavar="FILE"),
        option("--tls-client-cert-file", "The client's certificate.", default="", metavar="FILE"),
        option("--tls-client-key-file", "Its key.", default="", metavar="FILE"),
        option("--tls-server-name", "Whom the server's certificate is for.", default="", metavar="NAME"),
    ]  # fmt: skip
