"""``cirri monitor``: follow the kernel's events, from the rings or from the service that reads them."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import click

from cirri.cli.context import Target
from cirri.cli.observer import NODE_SOCKET, Unreachable
from cirri.cli.pins import Names, Node, from_each, nodes, rule_text
from cirri.cli.records import ICMP, end_text, events_record, protocol_text
from cirri.layout import (
    EVENT_COUNTER,
    EVENTS,
    EventRecord,
    EventType,
    PolicyDirection,
    PolicyMatch,
    TracePoint,
    TraceState,
    address_of,
    drop_text,
)
from cirri.maps import RingBuffer, RingBusy, open_per_cpu
from cirri.maps.ring import POLL_S

if TYPE_CHECKING:
    from cirri.cli.monitorflows import Told

KINDS = {
    EventType.DROP: "drop",
    EventType.POLICY_VERDICT: "policy-verdict",
    EventType.TRACE: "trace",
    EventType.CONNECTION_CLOSED: "closed",
}
TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
"""By bit, RFC 9293 section 3.1."""


@click.command()
@click.option("--node", metavar="NODE", help="Only this node.  [default: every node of the cluster]")
@click.option(
    "-t",
    "--type",
    "kinds",
    type=click.Choice(sorted(KINDS.values())),
    multiple=True,
    help="Only events of this type; repeatable.",
)
@click.option("--related-to", type=int, metavar="ID", help="Only events of this endpoint.")
@click.option("--all", "everything", is_flag=True, help="Begin with what the ring buffers still hold.")
@click.option("-v", "--verbose", is_flag=True, help="Show time and rule too.")
@click.option("-o", "--output", "form", type=click.Choice(["json"]), help="One JSON object a line.")
@click.pass_obj
def monitor(
    target: Target,
    *,
    node: str | None,
    kinds: Sequence[str],
    related_to: int | None,
    everything: bool,
    verbose: bool,
    form: str | None,
) -> None:
    """Follow the kernel's events from now on: drops, verdicts, connections.

    A ring buffer has one reader.  That is the node's service `flows`, which tells its flows as events:
    those that it still holds come first with --all.  While it is away this command reads the ring itself;
    what nobody has read yet is thrown away then, or with --all shown first.  Events that the kernel could
    not store are counted and told.
    """
    chosen = nodes(target, node)
    with ExitStack() as stack:
        followed, failed = from_each(chosen, lambda n: [_follow(n, stack, everything=everything)])
        skipped = 0 if everything else sum(each.skip() for each in followed if isinstance(each, _Ring))
        since = "all that are there, then new ones" if everything else "from now on"
        if skipped:
            since += f"; {skipped} earlier ones are thrown away (--all shows them)"
        names = ", ".join(each.node.name for each in followed)
        click.echo(f"Listening for events on {names}: {since}", err=True)
        try:
            while True:
                _wait([each for each in followed if isinstance(each, _Ring)])
                for each in followed:
                    for event in each.events():
                        if (kinds and event["type"] not in kinds) or related_to not in (
                            None,
                            event["endpoint"],
                        ):
                            continue
                        if form:
                            click.echo(json.dumps({"node": each.node.name, **event}))
                            continue
                        prefix = f"[{each.node.name}] " if len(chosen) > 1 else ""
                        click.echo(prefix + line(event, verbose=verbose))
                    if lost := each.lost():
                        click.echo(
                            f"{each.node.name}: {lost} events lost: the ring buffer was full", err=True
                        )
        except KeyboardInterrupt:
            raise click.exceptions.Exit(1 if failed else 0) from None


def _follow(node: Node, stack: ExitStack, *, everything: bool) -> _Ring | Told:
    """The node's ring, or who reads it.  Raises: RingBusy, if that one tells nothing."""
    try:
        return _Ring(node, stack)
    except RingBusy as busy:
        if not (node.run_dir / NODE_SOCKET).exists():
            raise
        from cirri.cli.monitorflows import Told

        try:
            return Told(node, stack, everything=everything)
        except Unreachable:
            raise busy from None


class _Ring:
    """A node's ring buffer and its count of losses."""

    def __init__(self, node: Node, stack: ExitStack) -> None:
        self.node = node
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self.ring = stack.enter_context(RingBuffer(node.bpffs / EVENTS.name))
        self._counters = stack.enter_context(open_per_cpu(node.bpffs, EVENT_COUNTER))
        self._known = events_record(self._counters.to_dict())["lost"]

    def fileno(self) -> int:
        return self.ring.fileno()

    def skip(self) -> int:
        """Throw away what is there; how many those were."""
        return len(self.ring.read())

    def events(self) -> list[dict[str, Any]]:
        """What has come."""
        records = (EventRecord.unpack(raw) for raw in self.ring.read())
        return [describe(record, self.node.names, self._offset_ns) for record in records]

    def lost(self) -> int:
        """How many were lost since the last call."""
        before, self._known = self._known, events_record(self._counters.to_dict())["lost"]
        return int(self._known - before)


def _wait(rings: Sequence[_Ring]) -> None:
    """Until one has something, but not long: programs save wake-ups."""
    if not any(ring.ring.pending for ring in rings):
        select.select(rings, [], [], POLL_S)


def describe(record: EventRecord, names: Names, offset_ns: int) -> dict[str, Any]:
    """An event as a plain mapping; *offset_ns* is wall clock minus CLOCK_MONOTONIC."""
    when = datetime.fromtimestamp((record.timestamp + offset_ns) / 1e9, UTC)
    known = record.type in KINDS
    event: dict[str, Any] = {
        "time": when.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "type": KINDS[EventType(record.type)] if known else f"type {record.type}",
        "source": str(address_of(record.source)),
        "sourcePort": record.source_port,
        "destination": str(address_of(record.destination)),
        "destinationPort": record.destination_port,
        "protocol": protocol_text(record.protocol),
        "sourceIdentity": record.source_identity,
        "destinationIdentity": record.destination_identity,
        "sourceLabels": names.labels(record.source_identity),
        "destinationLabels": names.labels(record.destination_identity),
        "endpoint": record.endpoint,
        "direction": _direction(record.direction),
        "tcpFlags": [flag for bit, flag in enumerate(TCP_FLAGS) if record.tcp_flags >> bit & 1],
        "length": record.length,
        "rule": names.rule(record.rule),
    }
    if record.type == EventType.POLICY_VERDICT:
        event["verdict"] = _verdict(record)
        event["proxyPort"] = record.proxy_port
        event["match"] = _match(record.match)
    if record.type == EventType.TRACE:
        event["point"] = _name(TracePoint, record.point)
        event["state"] = _name(TraceState, record.state)
    if record.reason:
        event["reason"], event["reasonText"] = record.reason, drop_text(record.reason)
    if record.type in (EventType.CONNECTION_CLOSED, EventType.TRACE):
        event["packets"], event["bytes"] = record.packets, record.bytes
    if record.protocol in ICMP:
        event["icmpType"] = record.destination_port
    return event


def line(event: dict[str, Any], *, verbose: bool = False) -> str:
    """An event as ``cilium-dbg monitor`` words it."""
    identities = f"identity {event['sourceIdentity']}->{event['destinationIdentity']}"
    flow = _flow(event)
    match event["type"]:
        case "drop":
            text = (
                f"xx drop ({event.get('reasonText', '')}) endpoint {event['endpoint']}, {identities}: {flow}"
            )
        case "policy-verdict":
            outgoing = event["direction"] == "egress"
            remote = event["destinationIdentity"] if outgoing else event["sourceIdentity"]
            text = (
                f"Policy verdict log: local EP ID {event['endpoint']}, remote ID {remote}, "
                f"proto {event['protocol']}, {event['direction']}, action {event['verdict']}, "
                f"match {event['match']}, {flow}"
            )
        case "closed":
            text = f"-- {identities} state closed: {flow} {event['packets']} packets {event['bytes']} bytes"
        case "trace":
            text = f"{_point(event)}, {identities} state {event['state']}: {flow}"
        case kind:
            text = f"-- {identities} {kind}: {flow}"
    if verbose:
        rule = f" rule {rule_text(event['rule'])}" if event["rule"] else ""
        text = f"{event['time']} {text}{rule}"
    return text


def _point(event: dict[str, Any]) -> str:
    """``-> endpoint 77``, ``<- host``: where the packet goes to, or comes from."""
    way, _, place = event["point"].partition("-")
    if not place:
        return "-> somewhere"
    if place == "endpoint":
        place = f"endpoint {event['endpoint']}"
    return f"{'<-' if way == 'from' else '->'} {place}"


def _flow(event: dict[str, Any]) -> str:
    """``10.0.0.1:40000 -> 10.0.0.2:80 tcp SYN``."""
    protocol = event["protocol"].lower()
    if "icmpType" in event:
        return f"{event['source']} -> {event['destination']} {protocol} type {event['icmpType']}" + (
            f" id {event['sourcePort']}" if event["sourcePort"] else ""
        )
    source = end_text(event["source"], event["sourcePort"])
    destination = end_text(event["destination"], event["destinationPort"])
    return " ".join(filter(None, (source, "->", destination, protocol, ",".join(event["tcpFlags"]))))


def _name(names: type[IntEnum], number: int) -> str:
    known = number in names._value2member_map_
    return names(number).name.lower().replace("_", "-") if known else str(number)


def _direction(direction: int) -> str:
    return PolicyDirection(direction).name.lower() if direction in (1, 2) else ""


def _verdict(record: EventRecord) -> str:
    if record.reason:
        return "audit" if record.audited else "deny"
    return "redirect" if record.proxy_port else "allow"


def _match(number: int) -> str:
    return PolicyMatch(number).text if number in PolicyMatch._value2member_map_ else str(number)
