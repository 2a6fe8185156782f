"""Which rows each metric counts, and by which labels of its own: Hubble's names, with its meanings.

A row is a flow that was seen, not a packet: what is aggregated counts once.  Where Hubble counts one
packet twice (a verdict and the drop that follows; a verdict and the packet that it let pass), this counts
the second alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cirri.flows.columns import Column, Mask, View
from cirri.flows.l7families import L7_METRICS
from cirri.flows.metric import Metric, Options, Picked, l7_kind, numbers, protocol
from cirri.flows.texts import (
    DIRECTIONS,
    ICMP,
    ICMP6,
    ICMP6_TYPES,
    ICMP_TYPES,
    MATCHES,
    POINTS,
    PROTOCOLS,
    REASONS,
    SCTP,
    TCP,
    TYPES,
    UDP,
    VERDICTS,
)
from cirri.history.rows import Reply, RowType, Verdict
from cirri.hubble.facts import reasons
from cirri.layout import DropReason

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
HOST = 1
"""Identity ``reserved:host``."""


def _forwarded(view: View) -> Mask:
    verdict = view.field("verdict")
    return (verdict == Verdict.FORWARDED) | (verdict == Verdict.REDIRECTED)  # type: ignore[no-any-return]


def _flows(view: View, options: Options) -> Picked:
    kind = view.field("type")
    subtype = Column.looked_up(np.where(kind == RowType.TRACE, view.field("point"), 0), POINTS)
    at, records = view.records
    if records:
        spread = np.zeros(len(view), np.int64)
        kinds = Column.of(map(l7_kind, records))
        spread[at] = kinds.codes
        subtype = Column(spread, kinds.texts).otherwise(subtype)
    labels = [
        protocol(view),
        Column.looked_up(kind, TYPES),
        subtype,
        Column.looked_up(view.field("verdict"), VERDICTS),
    ]
    rows = np.flatnonzero(kind != RowType.CONNECTION_CLOSED)
    return Picked(rows, [label.at(rows) for label in labels])


def _drops(view: View, options: Options) -> Picked:
    kind = view.field("type")
    dropped = (view.field("verdict") == Verdict.DROPPED) & (kind != RowType.POLICY_VERDICT)
    rows = np.flatnonzero(dropped)
    reason = Column.looked_up(reasons(view.table.rows), REASONS)
    return Picked(rows, [reason.at(rows), protocol(view).at(rows)])


def _tcp_flags(view: View, options: Options) -> Picked:
    flags = view.field("tcp_flags")
    told = (view.field("protocol") == TCP) & (view.field("type") == RowType.TRACE) & _forwarded(view)
    masks = {
        "FIN": flags & FIN != 0,
        "SYN-ACK": flags & (SYN | ACK) == SYN | ACK,
        "SYN": flags & (SYN | ACK) == SYN,
        "RST": flags & RST != 0,
    }
    found = [np.flatnonzero(told & mask) for mask in masks.values()]
    rows = np.concatenate(found)
    flag = Column(np.repeat(np.arange(1, 5), [len(part) for part in found]), ["", *masks])
    return Picked(rows, [flag, view.family.at(rows)])


def _icmp(view: View, options: Options) -> Picked:
    transport = view.field("protocol")
    packet = np.isin(view.field("type"), (RowType.TRACE, RowType.DROP))
    rows = np.flatnonzero(np.isin(transport, (ICMP, ICMP6)) & packet)
    number = np.minimum(view.field("destination_port")[rows], 255)
    four, six = Column.looked_up(number, ICMP_TYPES), Column.looked_up(number, ICMP6_TYPES)
    family = Column(np.where(transport[rows] == ICMP, 1, 2), ["", "IPv4", "IPv6"])
    return Picked(rows, [family, four.where(transport[rows] == ICMP6, six)])


def _ports(view: View, options: Options) -> Picked:
    forwards = _forwarded(view) & (view.field("reply") == Reply.NO)
    rows = np.flatnonzero(forwards & (view.field("type") != RowType.CONNECTION_CLOSED))
    rows = rows[np.isin(view.field("protocol")[rows], (TCP, UDP, SCTP, ICMP, ICMP6))]
    transport = view.field("protocol")[rows]
    port = np.where(np.isin(transport, (TCP, UDP, SCTP)), view.field("destination_port")[rows], 0)
    return Picked(rows, [Column.looked_up(transport, PROTOCOLS), numbers(port)])


def _to_world(view: View, options: Options) -> Picked:
    dropped = view.field("verdict") == Verdict.DROPPED
    kind, flags = view.field("type"), view.field("tcp_flags")
    counted = (view.end("destination", "world").codes != 0) & (kind != RowType.CONNECTION_CLOSED)
    counted &= (kind != RowType.POLICY_VERDICT) & (dropped | (view.field("reply") != Reply.YES))
    if "any-drop" not in options:
        counted &= ~dropped | (view.field("reason") == DropReason.POLICY)
    if "syn-only" in options:
        counted &= (view.field("protocol") == TCP) & (flags & (SYN | ACK) == SYN)
    rows = np.flatnonzero(counted)
    verdict = Column.looked_up(view.field("verdict")[rows], VERDICTS)
    labels = [protocol(view).at(rows), verdict]
    if "port" in options:
        ports = numbers(view.field("destination_port")[rows])
        portless = ~np.isin(view.field("protocol")[rows], (TCP, UDP, SCTP))
        labels.append(ports.where(portless, Column(np.zeros(len(rows), np.int64), [""])))
    return Picked(rows, labels)


def _verdicts(view: View, options: Options) -> Picked:
    """Of the policy: on connections, and on requests.  What a node itself asks of its pods is none."""
    kind = view.field("type")
    on_packets = (kind == RowType.POLICY_VERDICT) & (view.field("source_identity") != HOST)
    requests = np.zeros(len(view), np.bool_)
    of_l7 = np.zeros(len(view), np.int64)
    at, records = view.records
    kinds = Column.of(f"l7/{l7_kind(record).lower()}" for record in records)
    of_l7[at] = kinds.codes
    requests[at] = [record.type == "request" for record in records]
    rows = np.flatnonzero(on_packets | requests)
    match = Column(of_l7, kinds.texts).otherwise(Column.looked_up(view.field("match"), MATCHES))
    action = Column.looked_up(view.field("verdict"), [text.lower() for text in VERDICTS])
    direction = Column.looked_up(view.field("direction"), DIRECTIONS)
    return Picked(rows, [direction.at(rows), match.at(rows), action.at(rows)])


METRICS: Mapping[str, tuple[Metric, ...]] = {
    **L7_METRICS,
    "drop": (Metric("hubble_drop", "Number of drops", ("reason", "protocol"), _drops),),
    "flow": (
        Metric(
            "hubble_flows_processed",
            "Total number of flows processed",
            ("protocol", "type", "subtype", "verdict"),
            _flows,
        ),
    ),
    "flows-to-world": (
        Metric(
            "hubble_flows_to_world",
            "Total number of flows to reserved:world",
            ("protocol", "verdict"),
            _to_world,
            {"port": "port"},
        ),
    ),
    "icmp": (Metric("hubble_icmp", "Number of ICMP messages", ("family", "type"), _icmp),),
    "policy": (
        Metric(
            "hubble_policy_verdicts",
            "Total number of network policy verdicts",
            ("direction", "match", "action"),
            _verdicts,
        ),
    ),
    "port-distribution": (
        Metric(
            "hubble_port_distribution",
            "Numbers of packets distributed by destination port",
            ("protocol", "port"),
            _ports,
        ),
    ),
    "tcp": (Metric("hubble_tcp_flags", "TCP flag occurrences", ("flag", "family"), _tcp_flags),),
}
"""Of each family of :data:`cirri.model.flowmetrics.FAMILIES`."""
