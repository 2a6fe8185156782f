"""Flows as lines, in the forms of ``hubble observe``.  Pure: messages of the observer API in, text out.

``MONTH DAY TIME[ [NODE]]: SOURCE (IDENTITY) -> DESTINATION (IDENTITY) TYPE VERDICT (SUMMARY)``; the arrow is
``<-``, with the ends swapped, for what answers, and ``<>`` where that is not known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import click

from cirri.cli.drops import DROPS
from cirri.cli.flowfilters import EVENT_TYPES, RESERVED, TRACE_POINTS
from cirri.cli.flowtime import DEFAULT, stamp
from cirri.cli.output import table
from cirri.layout import PolicyMatch

Form = Literal["compact", "dict", "table", "json"]
FORMS = ("compact", "dict", "json", "jsonpb", "table")
SEPARATOR = "------------"
NAMES_SHOWN = 50
"""Letters of nodes' names in a line about them; the rest is counted."""
_IDENTITIES = {number: name for name, number in RESERVED.items()}
_MATCHES = {int(match): match.text for match in PolicyMatch}
_SAFE = str.maketrans({"\x1b": "^[", "\r": "\\r"})
"""What others may have put into names and URLs must not steer the reader's terminal."""
_POLICY_VERDICT = EVENT_TYPES["policy-verdict"]


@dataclass(frozen=True, slots=True)
class Style:
    """How flows are shown."""

    form: Form = "compact"
    time: str = DEFAULT
    """A name of :data:`cirri.cli.flowtime.FORMATS`."""
    names: bool = True
    """Names instead of addresses, where there are any."""
    node: bool = False
    policies: bool = False
    processes: bool = False
    """Say which program is behind each end."""
    colors: bool = False

    def paint(self, text: str, color: str) -> str:
        """*text* in that color, if :attr:`colors`."""
        return click.style(text, fg=color) if self.colors else text


class Printer:
    """Turns responses into text; knows how many there were, and keeps a table until it is whole."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self._count = 0
        self._rows: list[list[str]] = []

    def flow(self, response: Any) -> str:
        """A ``GetFlowsResponse`` with a flow; "": it is part of a table."""
        style, flow = self.style, response.flow
        if style.form == "json":
            return as_json(response)
        source, destination = ends(flow, style)
        time, kind = stamp(flow.time, style.time), flow_type(flow)
        verdict, said = verdict_text(flow, style), summary(flow)
        if style.form == "compact":
            identities = [_identity(end.identity, style) for end in (flow.source, flow.destination)]
            arrow = "<>"
            if flow.HasField("is_reply"):
                arrow = "<-" if flow.is_reply.value else "->"
                if flow.is_reply.value:
                    source, destination, identities = destination, source, identities[::-1]
            at = f" [{safe(flow.node_name)}]" if style.node else ""
            return (
                f"{time}{at}: {source} {identities[0]} {arrow} {destination} {identities[1]} "
                f"{kind} {verdict} ({said}){self._behind(flow)}"
            )
        return self._record(
            time,
            flow.node_name,
            (("SOURCE", source), ("DESTINATION", destination), ("TYPE", kind), ("VERDICT", verdict),
             ("SUMMARY", said),
             *([("PROCESS", self._behind(flow).strip())] if style.processes else [])),
        )  # fmt: skip

    def _behind(self, flow: Any) -> str:
        """`` /usr/bin/curl -> /usr/sbin/nginx``, in the order of the ends; ``?`` for who is not known."""
        if not self.style.processes:
            return ""
        from cirri.hubble.processes import told

        who = told(flow)
        names = [safe(one.binary) if one is not None else "?" for one in (who.source, who.destination)]
        arrow = "->"
        if flow.HasField("is_reply") and flow.is_reply.value:
            names, arrow = names[::-1], "<-"
        return " " + self.style.paint(f"{names[0]} {arrow} {names[1]}", "yellow")

    def lost(self, response: Any) -> str:
        """One that says how many events were lost, and where."""
        lost = response.lost_events
        source, cpu = enum_name(lost, "source"), lost.cpu.value
        match self.style.form:
            case "json":
                return as_json(response)
            case "compact":
                return f"EVENTS LOST: {source} CPU({cpu}) {lost.num_events_lost}"
        return self._record(
            "",
            "",
            (("SOURCE", source), ("DESTINATION", ""), ("TYPE", "EVENTS LOST"), ("VERDICT", ""),
             ("SUMMARY", f"CPU({cpu}) - {lost.num_events_lost}")),
        )  # fmt: skip

    def event(self, response: Any, details: str) -> str:
        """A ``GetAgentEventsResponse``; *details* say what happened."""
        style, kind = self.style, enum_name(response.agent_event, "type")
        time = stamp(response.time, style.time)
        match style.form:
            case "json":
                return as_json(response)
            case "compact":
                at = f" [{safe(response.node_name)}]" if style.node else ""
                return f"{time}{at}: {kind} ({details})"
        return self._record(time, response.node_name, (("TYPE", kind), ("DETAILS", details)))

    def rest(self) -> str:
        """What is left to print at the end: the table."""
        if not self._rows:
            return ""
        header, *rows = self._rows
        return table(header, rows)

    def _record(self, time: str, node: str, fields: Iterable[tuple[str, str]]) -> str:
        """A row of the table, or the fields below each other."""
        cells = [("TIMESTAMP", time), *([("NODE", safe(node))] if self.style.node else []), *fields]
        self._count += 1
        if self.style.form == "table":
            if not self._rows:
                self._rows.append([title for title, _ in cells])
            self._rows.append([cell for _, cell in cells])
            return ""
        lines = [f"{title:>11}: {cell}" for title, cell in cells]
        return "\n".join([SEPARATOR, *lines] if self._count > 1 else lines)


def node_status(response: Any, style: Style) -> str:
    """What a response about nodes says of some that are away or failed; "" if all is well."""
    status = response.node_status
    change, count = enum_name(status, "state_change"), len(status.node_names)
    if change not in ("NODE_ERROR", "NODE_UNAVAILABLE"):
        return ""
    if style.form == "json":
        return as_json(response)
    nodes = _cut(status.node_names)
    prefix = f"{stamp(response.time, style.time)} [{safe(response.node_name)}]"
    if change == "NODE_UNAVAILABLE":
        return f"{prefix}: {count} nodes are unavailable: {nodes}"
    return f'{prefix}: Error "{safe(status.message)}" on {count} nodes: {nodes}'


def _cut(names: Iterable[str]) -> str:
    """Names until :data:`NAMES_SHOWN` letters, one at least, and how many more there are."""
    shown: list[str] = []
    rest = [safe(name) for name in names]
    while rest and (not shown or len(", ".join([*shown, rest[0]])) <= NAMES_SHOWN):
        shown.append(rest.pop(0))
    return ", ".join(shown) + (f" (and {len(rest)} more)" if rest else "")


def as_json(message: Any) -> str:
    """proto3's JSON mapping on one line, with the names of the .proto file."""
    import google.protobuf.struct_pb2  # noqa: F401  what `extensions` of a flow hold
    from google.protobuf.json_format import MessageToDict

    said = MessageToDict(message, preserving_proto_field_name=True)
    return json.dumps(said, separators=(",", ":"), ensure_ascii=False)


def safe(text: str) -> str:
    """*text* without what would steer a terminal."""
    return text.translate(_SAFE)


def ends(flow: Any, style: Style) -> tuple[str, str]:
    """(source, destination) as ``HOST:PORT``."""
    if not flow.HasField("IP"):
        return style.paint(safe(flow.ethernet.source), "cyan"), style.paint(
            safe(flow.ethernet.destination), "cyan"
        )
    source_port, destination_port = _ports(flow)
    return (
        _end(flow.IP.source, source_port, (flow.source, flow.source_service, flow.source_names), style),
        _end(
            flow.IP.destination,
            destination_port,
            (flow.destination, flow.destination_service, flow.destination_names),
            style,
        ),
    )


def _ports(flow: Any) -> tuple[int, int]:
    match flow.l4.WhichOneof("protocol"):
        case "TCP" | "UDP" | "SCTP" as protocol:
            ports = getattr(flow.l4, protocol)
            return ports.source_port, ports.destination_port
    return 0, 0


def _end(address: str, port: int, known: tuple[Any, Any, Any], style: Style) -> str:
    endpoint, service, names = known
    host = address
    if style.names:
        namespace = service.namespace or endpoint.namespace
        if endpoint.pod_name:
            host = _joined(namespace, endpoint.pod_name)
        elif service.name:
            host = _joined(namespace, service.name)
        elif names:
            host = ",".join(names)
    host = safe(host)
    if port:
        shown = style.paint(str(port), "yellow")
        host = f"[{host}]:{shown}" if ":" in host else f"{host}:{shown}"
    return style.paint(host, "cyan")


def _joined(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def _identity(number: int, style: Style) -> str:
    return style.paint(f"({_IDENTITIES.get(number) or f'ID:{number}'})", "magenta")


def flow_type(flow: Any) -> str:
    """``http-request``, ``policy-verdict:none INGRESS``, ``to-endpoint``, ``Policy denied``, ..."""
    if flow.HasField("l7"):
        kind = enum_name(flow.l7, "type").lower()
        match flow.l7.WhichOneof("record"):
            case "dns":
                return f"dns-{kind} {safe(flow.l7.dns.observation_source)}"
            case "http" | "kafka" as protocol:
                return f"{protocol}-{kind}"
        return f"l7-{kind}"
    number, sub_type = flow.event_type.type, flow.event_type.sub_type & 0xFF
    match number:
        case 1:
            return DROPS.get(sub_type, str(sub_type))
        case 3:
            return enum_name(flow, "debug_capture_point")
        case 4:
            return TRACE_POINTS[sub_type] if sub_type < len(TRACE_POINTS) else str(sub_type)
        case 5:
            match = _MATCHES.get(flow.policy_match_type, "unknown")
            return f"policy-verdict:{match} {enum_name(flow, 'traffic_direction')}"
        case 7:
            return _translation(enum_name(flow, "sock_xlate_point"))
    return "UNKNOWN"


def _translation(name: str) -> str:
    """``pre-xlate-fwd`` of ``SOCK_XLATE_POINT_PRE_DIRECTION_FWD``."""
    words = name.removeprefix("SOCK_XLATE_POINT_").lower().split("_")
    return f"{words[0]}-xlate-{words[-1]}" if len(words) == 3 else name


_COLORS = {"FORWARDED": "green", "REDIRECTED": "green", "DROPPED": "red", "ERROR": "red", "AUDIT": "yellow"}
_DECIDED = {
    "FORWARDED": "ALLOWED",
    "REDIRECTED": "ALLOWED",
    "DROPPED": "DENIED",
    "ERROR": "DENIED",
    "AUDIT": "AUDITED",
}
"""What a policy's verdict is called."""


def verdict_text(flow: Any, style: Style) -> str:
    """``DROPPED``; of a policy's verdict ``DENIED``, and, if asked for, whose that was."""
    name = shown = enum_name(flow, "verdict")
    if flow.event_type.type == _POLICY_VERDICT:
        shown = _DECIDED.get(name, name)
    color = _COLORS.get(name) or ("yellow" if name in ("TRACED", "TRANSLATED") else "")
    shown = style.paint(shown, color) if color else shown
    policies = _policies(flow, name) if style.policies else ""
    return f"{shown} BY {policies}" if policies else shown


def _policies(flow: Any, verdict: str) -> str:
    """``rule1 (CiliumNetworkPolicy), rule2 (CiliumClusterwideNetworkPolicy)``."""
    direction = enum_name(flow, "traffic_direction").lower()
    did = "allowed" if verdict in ("FORWARDED", "REDIRECTED") else "denied"
    field = f"{direction}_{did}_by"
    if flow.event_type.type != _POLICY_VERDICT or field not in flow.DESCRIPTOR.fields_by_name:
        return ""
    return ", ".join(f"{safe(each.name)} ({safe(each.kind)})" for each in getattr(flow, field))


def summary(flow: Any) -> str:
    """What stands in brackets at the end."""
    text = safe(flow.Summary)
    if traced := flow.ip_trace_id.trace_id:
        text = f"IP Trace ID: {traced}; {text}"
    authentication = enum_name(flow, "auth_type")
    return text if authentication == "DISABLED" else f"{text}; {authentication}"


def enum_name(message: Any, field: str) -> str:
    """Name of the value of an enumeration's *field*; unknown ones by their number."""
    number: int = getattr(message, field)
    kind: Any = type(message)
    return _value_names(kind, field).get(number) or str(number)


@lru_cache(maxsize=64)
def _value_names(kind: Any, field: str) -> dict[int, str]:
    values = kind.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number
    return {number: value.name for number, value in values.items()}
