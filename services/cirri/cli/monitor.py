"""``cirri monitor``: follow the kernel's events, straight from the ring buffers."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import click

from cirri.cli.context import Target
from cirri.cli.pins import Names, Node, from_each, nodes, rule_text
from cirri.cli.records import ICMP, end_text, events_record, protocol_text
from cirri.layout import (
    EVENT_COUNTER,
    EVENTS,
    EventRecord,
    EventType,
    PolicyDirection,
    PolicyMatch,
    address_of,
    drop_text,
)
from cirri.maps import RingBuffer, open_per_cpu
from cirri.maps.ring import POLL_S

KINDS = {
    EventType.DROP: "drop",
    EventType.POLICY_VERDICT: "policy-verdict",
    EventType.TRACE: "new",
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

    What nobody has read yet, often minutes of it, is thrown away; with --all it is shown first.
    A ring buffer has one reader: while a service reads it, this command says so.  Events that
    the kernel could not store are counted and told.
    """
    chosen = nodes(target, node)
    offset_ns = time.time_ns() - time.monotonic_ns()
    with ExitStack() as stack:
        rings, failed = from_each(chosen, lambda n: [_Followed(n, stack)])
        skipped = 0 if everything else sum(ring.skip() for ring in rings)
        since = "all that are there, then new ones" if everything else "from now on"
        if skipped:
            since += f"; {skipped} earlier ones are thrown away (--all shows them)"
        names = ", ".join(ring.node.name for ring in rings)
        click.echo(f"Listening for events on {names}: {since}", err=True)
        try:
            while True:
                _wait(rings)
                for ring in rings:
                    for record in ring.records():
                        event = describe(record, ring.node.names, offset_ns)
                        if (kinds and event["type"] not in kinds) or related_to not in (
                            None,
                            record.endpoint,
                        ):
                            continue
                        if form:
                            click.echo(json.dumps({"node": ring.node.name, **event}))
                            continue
                        prefix = f"[{ring.node.name}] " if len(chosen) > 1 else ""
                        click.echo(prefix + line(event, verbose=verbose))
                    if lost := ring.lost():
                        click.echo(
                            f"{ring.node.name}: {lost} events lost: the ring buffer was full", err=True
                        )
        except KeyboardInterrupt:
            raise click.exceptions.Exit(1 if failed else 0) from None


class _Followed:
    """A node's ring buffer and its count of losses."""

    def __init__(self, node: Node, stack: ExitStack) -> None:
        self.node = node
        self.ring = stack.enter_context(RingBuffer(node.bpffs / EVENTS.name))
        self._counters = stack.enter_context(open_per_cpu(node.bpffs, EVENT_COUNTER))
        self._known = events_record(self._counters.to_dict())["lost"]

    def fileno(self) -> int:
        return self.ring.fileno()

    def skip(self) -> int:
        """Throw away what is there; how many those were."""
        return len(self.ring.read())

    def records(self) -> list[EventRecord]:
        """What has come."""
        return [EventRecord.unpack(raw) for raw in self.ring.read()]

    def lost(self) -> int:
        """How many were lost since the last call."""
        before, self._known = self._known, events_record(self._counters.to_dict())["lost"]
        return int(self._known - before)


def _wait(rings: Sequence[_Followed]) -> None:
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
    if record.reason:
        event["reason"], event["reasonText"] = record.reason, drop_text(record.reason)
    if record.type == EventType.CONNECTION_CLOSED:
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
        case kind:
            text = f"-> {identities} state {kind}: {flow}"
    if verbose:
        rule = f" rule {rule_text(event['rule'])}" if event["rule"] else ""
        text = f"{event['time']} {text}{rule}"
    return text


def _flow(event: dict[str, Any]) -> str:
    """``10.0.0.1:40000 -> 10.0.0.2:80 tcp SYN``."""
    protocol = event["protocol"].lower()
    if "icmpType" in event:
        return (
            f"{event['source']} -> {event['destination']} {protocol} type {event['icmpType']} "
            f"id {event['sourcePort']}"
        )
    source = end_text(event["source"], event["sourcePort"])
    destination = end_text(event["destination"], event["destinationPort"])
    return " ".join(filter(None, (source, "->", destination, protocol, ",".join(event["tcpFlags"]))))


def _direction(direction: int) -> str:
    return PolicyDirection(direction).name.lower() if direction in (1, 2) else ""


def _verdict(record: EventRecord) -> str:
    if record.reason:
        return "audit" if record.audited else "deny"
    return "redirect" if record.proxy_port else "allow"


def _match(number: int) -> str:
    return PolicyMatch(number).text if number in PolicyMatch._value2member_map_ else str(number)
