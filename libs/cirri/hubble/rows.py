"""The API's messages as rows: what :mod:`cirri.hubble.flows` tells, read back for the filters."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from contextlib import suppress
from typing import Any, TypeVar
from uuid import UUID

import numpy as np

from cirri.history import ROW, Reply, RowType, Table, parts_of
from cirri.hubble import facts
from cirri.hubble.summaries import ICMP, ICMPV6, SCTP, TCP, TCP_FLAGS, UDP
from cirri.layout import address16
from cirri.model.flows import End, ServiceRef, Workload
from cirri.model.records import DnsFacts, HttpFacts, L7Record

_TYPES = {
    facts.DROP_EVENT: RowType.DROP,
    facts.TRACE_EVENT: RowType.TRACE,
    facts.VERDICT_EVENT: RowType.POLICY_VERDICT,
    facts.L7_EVENT: RowType.L7,
}
_PORTS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
_ICMPS = {"ICMPv4": ICMP, "ICMPv6": ICMPV6}
Thing = TypeVar("Thing", bound=Hashable)


def instance_of(uuid: str) -> int:
    """Of the process that saw the flow *uuid*; 0: it is no UUID."""
    try:
        return parts_of(UUID(uuid))[0]
    except ValueError:
        return 0


def table_of(flows: Iterable[Any], node: str = "", instance: int = 0) -> Table:
    """The table of *flows*, messages ``flow.Flow`` of one *node* and one *instance*, in their order.

    What rows cannot hold is not there: events of other types have type 0, and no filter finds them.
    """
    ends: dict[End, int] = {}
    names: dict[tuple[str, ...], int] = {}
    services: dict[ServiceRef, int] = {}
    records: list[L7Record] = []
    rows = []
    for flow in flows:
        row = _numbers(flow)
        for side in ("source", "destination"):
            row[f"{side}_end"] = _index(ends, _end(getattr(flow, side)))
            if known := tuple(getattr(flow, f"{side}_names")):
                row[f"{side}_names"] = _index(names, known)
            service = getattr(flow, f"{side}_service")
            if service.name:
                ref = ServiceRef(namespace=service.namespace, name=service.name)
                row[f"{side}_service"] = _index(services, ref)
        if flow.HasField("l7"):
            records.append(_record(flow, node))
            row["l7"] = len(records)
        rows.append(row)
    found = np.zeros(len(rows), ROW)
    for field in ROW.names or ():
        values = [row.get(field, 0) for row in rows]
        found[field] = (
            np.frombuffer(b"".join(values), "V16") if field in ("source", "destination") else values
        )
    return Table(node, instance, found, tuple(ends), tuple(names), tuple(services), (), tuple(records))


def _index(known: dict[Thing, int], thing: Thing) -> int:
    return known.setdefault(thing, len(known) + 1)


def _numbers(flow: Any) -> dict[str, Any]:
    kind = _TYPES.get(flow.event_type.type, 0)
    row: dict[str, Any] = {
        "time": flow.time.ToNanoseconds(),
        "type": kind,
        "verdict": flow.verdict,
        "direction": flow.traffic_direction,
        "reply": (Reply.YES if flow.is_reply.value else Reply.NO) if flow.HasField("is_reply") else 0,
        "source_identity": flow.source.identity,
        "destination_identity": flow.destination.identity,
        "proxy_port": flow.proxy_port & 0xFFFF,
        "ifindex": flow.interface.index,
        "match": flow.policy_match_type & 0xFF,
        "state": flow.trace_reason & 0xFF,
        "source": address16(flow.IP.source) if flow.IP.source else bytes(16),
        "destination": address16(flow.IP.destination) if flow.IP.destination else bytes(16),
    }
    with suppress(ValueError):
        row["seq"] = parts_of(UUID(flow.uuid))[1]
    sub_type = flow.event_type.sub_type & 0xFF
    if kind == RowType.TRACE:
        row["point"] = sub_type or facts.TO_ENDPOINT
    reason = sub_type if kind == RowType.DROP else flow.drop_reason_desc
    row["reason"] = reason & 0xFF
    return row | _transport(flow.l4)


def _transport(l4: Any) -> dict[str, int]:
    protocol = l4.WhichOneof("protocol")
    told: Any = getattr(l4, protocol) if protocol else None
    if protocol in _PORTS:
        row = {
            "protocol": _PORTS[protocol],
            "source_port": told.source_port,
            "destination_port": told.destination_port,
        }
        if protocol == "TCP":
            bits = [bit for name, bit in TCP_FLAGS.items() if getattr(told.flags, name)]
            row["tcp_flags"] = sum(bits)
        return row
    return {"protocol": _ICMPS[protocol], "destination_port": told.type} if protocol in _ICMPS else {}


def _end(end: Any) -> End:
    return End(
        identity=end.identity,
        labels=tuple(end.labels),
        namespace=end.namespace,
        pod=end.pod_name,
        endpoint=end.ID & 0xFFFF,
        workloads=tuple(Workload(kind=each.kind, name=each.name) for each in end.workloads),
        cluster=end.cluster_name,
    )


def _record(flow: Any, node: str) -> L7Record:
    l7 = flow.l7
    http = dns = None
    match l7.WhichOneof("record"):
        case "http":
            http = HttpFacts(
                method=l7.http.method,
                url=l7.http.url,
                protocol=l7.http.protocol,
                code=l7.http.code,
                headers=tuple((each.key, each.value) for each in l7.http.headers),
            )
        case "dns":
            dns = DnsFacts(
                query=l7.dns.query,
                qtypes=tuple(l7.dns.qtypes),
                rcode=l7.dns.rcode,
                ips=tuple(l7.dns.ips),
                cnames=tuple(l7.dns.cnames),
                ttl=l7.dns.ttl,
            )
    return L7Record(
        time=flow.time.ToNanoseconds(),
        node=node,
        type="response" if l7.type == 2 else "request",
        verdict="forwarded",
        direction="egress" if flow.traffic_direction == 2 else "ingress",
        latency_ns=l7.latency_ns,
        http=http,
        dns=dns,
    )
