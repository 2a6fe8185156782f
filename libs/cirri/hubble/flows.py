"""Rows as the API's messages."""

from __future__ import annotations

from collections import namedtuple
from functools import cached_property
from typing import Any

from cirri.history import ROW, Reply, RowType, Table, Verdict, uuid_of
from cirri.hubble import facts
from cirri.hubble.facts import Place
from cirri.hubble.messages import Endpoint, Flow, FlowType, GetFlowsResponse, L7FlowType, Workload
from cirri.hubble.processes import extend, extension
from cirri.hubble.summaries import TCP_FLAGS, message, packet
from cirri.layout import PolicyDirection, address_text
from cirri.model.records import L7Record

_Row: Any = namedtuple("_Row", ROW.names or ())  # type: ignore[misc]
EMITTER = "Cirri"
HERE = Place()


def flow_message(table: Table, index: int, place: Place = HERE) -> Any:
    """Row *index* of *table* as ``flow.Flow``; for many of a table, make one :class:`Teller`."""
    return Teller(table, place).flow(index)


class Teller:
    """Makes messages of a table's rows; what they share is made once."""

    def __init__(self, table: Table, place: Place = HERE) -> None:
        self._table, self._place = table, place
        self._node = place.node(table.node)
        self._ends: dict[tuple[int, int], Any] = {}
        self._extensions: dict[int, bytes] = {}

    def response(self, index: int) -> Any:
        """``GetFlowsResponse`` with the flow in row *index*."""
        response = GetFlowsResponse(node_name=self._node)
        self._fill(response.flow, index)
        response.time.CopyFrom(response.flow.time)
        return response

    def flow(self, index: int) -> Any:
        """The flow in row *index*."""
        flow = Flow()
        self._fill(flow, index)
        return flow

    def _fill(self, flow: Any, index: int) -> None:
        table = self._table
        row: Any = _Row._make(table.rows[index].item())
        flow.uuid = str(uuid_of(table.instance, row.seq))
        flow.verdict, flow.traffic_direction, flow.proxy_port = row.verdict, row.direction, row.proxy_port
        flow.Type = FlowType.L7 if row.type == RowType.L7 else FlowType.L3_L4
        flow.node_name = self._node
        flow.source.CopyFrom(self._end(row.source_end, self._identities[0][index]))
        flow.destination.CopyFrom(self._end(row.destination_end, self._identities[1][index]))
        flow.emitter.name, flow.emitter.version = EMITTER, self._place.version
        flow.time.seconds, flow.time.nanos = divmod(row.time, 10**9)
        event, sub_type, reason, reply, version = self._columns[index]
        flow.event_type.type, flow.event_type.sub_type = event, sub_type
        if reason:
            flow.drop_reason_desc = flow.drop_reason = reason
        if reply:
            flow.is_reply.value = flow.reply = reply == Reply.YES
        if version:
            flow.IP.source, flow.IP.destination = address_text(row.source), address_text(row.destination)
            flow.IP.ipVersion = 1 if version == 4 else 2
        if row.type == RowType.TRACE:
            flow.trace_observation_point, flow.trace_reason = row.point, row.state
        elif row.type == RowType.POLICY_VERDICT:
            flow.policy_match_type = row.match
        if row.ifindex:
            flow.interface.index = row.ifindex
            flow.interface.name = self._place.interface(row.ifindex)
        self._transport(flow, row)
        self._names(flow, row)
        if row.rule_ref:
            self._policies(flow, row)
        if row.processes:
            extend(flow, self._extension(row.processes))
        if row.l7:
            self._message(flow, table.l7[row.l7 - 1])
        else:
            flow.Summary = packet(row.protocol, row.tcp_flags, row.destination_port)

    @cached_property
    def _identities(self) -> tuple[list[int], list[int]]:
        source, destination = (facts.identities(self._table, side) for side in ("source", "destination"))
        return source.tolist(), destination.tolist()

    @cached_property
    def _columns(self) -> list[tuple[int, int, int, int, int]]:
        """Type and sub-type of the event, reason, reply, version of IP: of each row."""
        rows = self._table.rows
        columns = (facts.event_types, facts.event_sub_types, facts.reasons, facts.replies, facts.versions)
        return list(zip(*(column(rows).tolist() for column in columns), strict=True))

    def _end(self, index: int, identity: int) -> Any:
        """The end at *index* - 1 of the table's."""
        if (found := self._ends.get((index, identity))) is None:
            found = Endpoint(identity=identity)
            if index:
                end = self._table.ends[index - 1]
                found = Endpoint(
                    ID=end.endpoint,
                    identity=identity,
                    cluster_name=end.cluster,
                    namespace=end.namespace,
                    labels=end.labels,
                    pod_name=end.pod,
                    workloads=[Workload(name=one.name, kind=one.kind) for one in end.workloads],
                )
            self._ends[index, identity] = found
        return found

    def _extension(self, index: int) -> bytes:
        if (found := self._extensions.get(index)) is None:
            found = self._extensions[index] = extension(self._table.processes[index - 1])
        return found

    def _transport(self, flow: Any, row: Any) -> None:
        match row.protocol:
            case 6:
                tcp = flow.l4.TCP
                tcp.source_port, tcp.destination_port = row.source_port, row.destination_port
                if row.type != RowType.L7:
                    tcp.flags.SetInParent()
                    for name, bit in TCP_FLAGS.items():
                        if row.tcp_flags & bit:
                            setattr(tcp.flags, name, True)
            case 17:
                flow.l4.UDP.source_port, flow.l4.UDP.destination_port = row.source_port, row.destination_port
            case 132:
                flow.l4.SCTP.source_port, flow.l4.SCTP.destination_port = (
                    row.source_port,
                    row.destination_port,
                )
            case 1:
                flow.l4.ICMPv4.type = row.destination_port
            case 58:
                flow.l4.ICMPv6.type = row.destination_port

    def _names(self, flow: Any, row: Any) -> None:
        table = self._table
        if row.source_names:
            flow.source_names.extend(table.names[row.source_names - 1])
        if row.destination_names:
            flow.destination_names.extend(table.names[row.destination_names - 1])
        for field, index in (
            ("source_service", row.source_service),
            ("destination_service", row.destination_service),
        ):
            if index:
                service = table.services[index - 1]
                told = getattr(flow, field)
                told.namespace, told.name = service.namespace, service.name

    def _policies(self, flow: Any, row: Any) -> None:
        """The rule behind a verdict; audited is what would have been denied."""
        rule = self._table.rules[row.rule_ref - 1]
        if rule.log:
            flow.policy_log.append(rule.log)
        denied = row.verdict in (Verdict.DROPPED, Verdict.AUDIT)
        if not rule.name or not (denied or row.verdict in (Verdict.FORWARDED, Verdict.REDIRECTED)):
            return
        match row.direction, denied:
            case (PolicyDirection.INGRESS, False):
                told = flow.ingress_allowed_by
            case (PolicyDirection.INGRESS, True):
                told = flow.ingress_denied_by
            case (PolicyDirection.EGRESS, False):
                told = flow.egress_allowed_by
            case (PolicyDirection.EGRESS, True):
                told = flow.egress_denied_by
            case _:
                return
        told.add(
            kind=rule.kind,
            namespace=rule.namespace,
            name=rule.name,
            labels=rule.labels,
            revision=rule.revision,
        )

    def _message(self, flow: Any, record: L7Record) -> None:
        flow.Summary = message(record)
        told = flow.l7
        told.type = L7FlowType.RESPONSE if record.type == "response" else L7FlowType.REQUEST
        told.latency_ns = record.latency_ns
        if (http := record.http) is not None:
            told.http.code, told.http.method = http.code, http.method
            told.http.url, told.http.protocol = http.url, http.protocol
            for key, value in sorted(http.headers):
                told.http.headers.add(key=key, value=value)
            if trace := facts.trace_id(record):
                flow.trace_context.parent.trace_id = trace
        elif (dns := record.dns) is not None:
            told.dns.query, told.dns.rcode, told.dns.ttl = dns.query, dns.rcode, dns.ttl
            told.dns.qtypes.extend(dns.qtypes)
            told.dns.ips.extend(dns.ips)
            told.dns.cnames.extend(dns.cnames)
            told.dns.observation_source = "proxy"
