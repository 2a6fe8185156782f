"""Tables of flows, row by row: what the service ``flows`` would have made of some traffic."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import numpy as np

from cirri.history.rows import ROW, Reply, RowType, Table, Verdict, uuid_of
from cirri.labels import CLUSTER_KEY, NAMESPACE_KEY, RESERVED_LABELS, Reserved, canonical, probes, world_label
from cirri.layout import DropReason, PolicyDirection, address16
from cirri.model.flows import End, RuleRef, ServiceRef, Workload
from cirri.model.records import DnsFacts, HttpFacts, L7Record

START_NS = 1_764_000_000 * 10**9
STEP_NS = 1_000_000
TCP, UDP, ICMP = 6, 17, 1
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
NEW, ESTABLISHED, REPLY = 1, 2, 3
"""Of column ``state``."""
TO_ENDPOINT = 101
INGRESS, EGRESS = PolicyDirection.INGRESS, PolicyDirection.EGRESS

Thing = TypeVar("Thing", bound=Hashable)


class Spot(NamedTuple):
    """One end of traffic: where it is, and what is known of it."""

    address: str
    end: End
    names: tuple[str, ...] = ()
    """DNS names under which others know the address."""


def pod(
    name: str,
    address: str,
    labels: Mapping[str, str] | None = None,
    *,
    workload: str = "",
    node: str = "n1",
    endpoint: int = 0,
    cluster: str = "default",
) -> Spot:
    """The pod NAMESPACE/NAME with *labels* (``app=NAME`` if None), of a Deployment if that is named."""
    namespace, _, short = name.partition("/")
    own = {"app": short} if labels is None else labels
    derived = {NAMESPACE_KEY: namespace, CLUSTER_KEY: cluster}
    known = canonical(f"k8s:{key}={value}" for key, value in {**own, **derived}.items())
    return Spot(
        address,
        End(
            identity=next(iter(probes(known))),
            labels=tuple(known),
            namespace=namespace,
            pod=short,
            endpoint=endpoint,
            node=node,
            workloads=(Workload(kind="Deployment", name=workload),) if workload else (),
            cluster=cluster,
        ),
    )


def outside(address: str, *names: str) -> Spot:
    """An address outside the cluster, known to its clients by *names*."""
    label = world_label(ip_address(address).version)
    number = next(int(each) for each, labels in RESERVED_LABELS.items() if label in labels)
    return Spot(address, End(identity=number, labels=(label,)), names)


def host(name: str, address: str) -> Spot:
    """The node that sees the flow."""
    return Spot(address, End(identity=int(Reserved.HOST), labels=(Reserved.HOST.label,), node=name))


class Traffic:
    """Rows that are added one after the other, each a step later than the one before."""

    def __init__(
        self, node: str = "n1", instance: int = 1, *, start_ns: int = START_NS, step_ns: int = STEP_NS
    ) -> None:
        self.node, self.instance = node, instance
        self.now_ns, self.step_ns = start_ns, step_ns
        self._rows: list[dict[str, Any]] = []
        self._ends: dict[End, int] = {}
        self._names: dict[tuple[str, ...], int] = {}
        self._services: dict[ServiceRef, int] = {}
        self._rules: dict[RuleRef, int] = {}
        self._l7: list[L7Record] = []
        self._ports = 40_000

    def new_port(self) -> int:
        """A client's port that nobody has had."""
        self._ports += 1
        return self._ports

    def add(
        self,
        type_: RowType,
        source: Spot,
        destination: Spot,
        *,
        service: str = "",
        rule_ref: RuleRef | None = None,
        l7: L7Record | None = None,
        **fields: Any,
    ) -> UUID:
        """One row, *fields* by their names in ``ROW``; *service*: NAMESPACE/NAME that was addressed."""
        seq = len(self._rows) + 1
        row: dict[str, Any] = {
            "time": self.now_ns,
            "seq": seq,
            "type": type_,
            "verdict": Verdict.FORWARDED,
            "protocol": TCP,
            "packets": 1,
            "length": 60,
        }
        for side, spot in (("source", source), ("destination", destination)):
            row[side] = address16(spot.address)
            row[f"{side}_identity"] = spot.end.identity
            row[f"{side}_end"] = _index(self._ends, spot.end)
            row[f"{side}_names"] = _index(self._names, spot.names) if spot.names else 0
        if service:
            namespace, _, name = service.partition("/")
            row["destination_service"] = _index(self._services, ServiceRef(namespace=namespace, name=name))
        if rule_ref is not None:
            row["rule_ref"] = _index(self._rules, rule_ref)
        if l7 is not None:
            self._l7.append(l7)
            row["l7"] = len(self._l7)
        self._rows.append({**row, **fields})
        self.now_ns += self.step_ns
        return uuid_of(self.instance, seq)

    def trace(
        self,
        client: Spot,
        server: Spot,
        port: int,
        *,
        client_port: int = 0,
        reply: bool = False,
        **fields: Any,
    ) -> UUID:
        """A packet that got through: of the client (a SYN that opens a connection), or of the server."""
        ports = {"source_port": client_port or self.new_port(), "destination_port": port}
        told: dict[str, Any] = {"point": TO_ENDPOINT, "state": NEW, "tcp_flags": SYN, "reply": Reply.NO}
        if fields.get("protocol", TCP) != TCP:
            told["tcp_flags"] = 0
        if reply:
            client, server = server, client
            ports = {"source_port": port, "destination_port": ports["source_port"]}
            told |= {"state": REPLY, "reply": Reply.YES}
            told["tcp_flags"] = SYN | ACK if told["tcp_flags"] else 0
        told["endpoint"] = server.end.endpoint
        return self.add(RowType.TRACE, client, server, **{**ports, **told, **fields})

    def connection(
        self, client: Spot, server: Spot, port: int, *, packets: int = 8, size: int = 800, **fields: Any
    ) -> int:
        """A whole TCP connection: opened, answered, closed.  The client's port."""
        mine = self.new_port()
        self.trace(client, server, port, client_port=mine, **fields)
        self.trace(client, server, port, client_port=mine, reply=True, **fields)
        self.trace(client, server, port, client_port=mine, state=ESTABLISHED, tcp_flags=FIN | ACK, **fields)
        self.closed(client, server, port, client_port=mine, packets=packets - 3, bytes=size, **fields)
        return mine

    def closed(self, client: Spot, server: Spot, port: int, *, client_port: int, **fields: Any) -> UUID:
        """A connection is forgotten; what no row told yet of it is told now."""
        ports = {"source_port": client_port, "destination_port": port}
        return self.add(RowType.CONNECTION_CLOSED, client, server, **{**ports, **fields})

    def verdict(
        self,
        client: Spot,
        server: Spot,
        port: int,
        direction: int = INGRESS,
        *,
        verdict: Verdict = Verdict.FORWARDED,
        **fields: Any,
    ) -> UUID:
        """What a policy says about a new connection."""
        ports = {"source_port": self.new_port(), "destination_port": port, "packets": 0}
        asked = server if direction == INGRESS else client
        told = {"direction": direction, "verdict": verdict, "tcp_flags": SYN, "endpoint": asked.end.endpoint}
        if verdict == Verdict.DROPPED:
            told["reason"] = DropReason.POLICY
        return self.add(RowType.POLICY_VERDICT, client, server, **{**ports, **told, **fields})

    def drop(
        self,
        client: Spot,
        server: Spot,
        port: int,
        direction: int = INGRESS,
        *,
        reason: int = DropReason.POLICY,
        **fields: Any,
    ) -> UUID:
        """A dropped packet; before it the verdict, if a policy's it is."""
        mine = fields.pop("source_port", 0) or self.new_port()
        if reason in (DropReason.POLICY, DropReason.POLICY_DENY, DropReason.POLICY_AUTH_REQUIRED):
            told = {"verdict": Verdict.DROPPED, "reason": reason, "source_port": mine, **fields}
            self.verdict(client, server, port, direction, **told)
        return self.add(
            RowType.DROP,
            client,
            server,
            **{
                "source_port": mine,
                "destination_port": port,
                "direction": direction,
                "verdict": Verdict.DROPPED,
                "reason": reason,
                "tcp_flags": 0 if fields.get("protocol", TCP) != TCP else SYN,
                "endpoint": (server if direction == INGRESS else client).end.endpoint,
                **fields,
            },
        )

    def http(
        self,
        client: Spot,
        server: Spot,
        method: str,
        url: str,
        code: int = 200,
        *,
        port: int = 80,
        latency_ns: int = 1_000_000,
        dropped: bool = False,
        direction: int = INGRESS,
        **fields: Any,
    ) -> UUID:
        """A request, and the answer to it if *code* is not 0; the request's UUID."""
        facts = HttpFacts(method=method, url=url, protocol="HTTP/1.1")
        answer = HttpFacts(method=method, url=url, protocol="HTTP/1.1", code=code) if code else None
        return self._l7_pair(
            client,
            server,
            port,
            request={"http": facts},
            answer={"http": answer} if answer else None,
            latency_ns=latency_ns,
            dropped=dropped,
            direction=direction,
            **fields,
        )

    def dns(
        self,
        client: Spot,
        server: Spot,
        query: str,
        ips: Sequence[str] = (),
        rcode: int | None = 0,
        *,
        qtypes: tuple[str, ...] = ("A",),
        latency_ns: int = 1_000_000,
        dropped: bool = False,
        **fields: Any,
    ) -> UUID:
        """A question, and the answer to it if *rcode* is not None; the question's UUID."""
        facts = DnsFacts(query=query, qtypes=qtypes)
        answer = None
        if rcode is not None:
            answer = {"dns": DnsFacts(query=query, qtypes=qtypes, rcode=rcode, ips=tuple(ips), ttl=30)}
        return self._l7_pair(
            client,
            server,
            53,
            request={"dns": facts},
            answer=answer,
            latency_ns=latency_ns,
            dropped=dropped,
            direction=EGRESS,
            **{"protocol": UDP, **fields},
        )

    def _l7_pair(
        self,
        client: Spot,
        server: Spot,
        port: int,
        *,
        request: dict[str, Any],
        answer: dict[str, Any] | None,
        latency_ns: int,
        dropped: bool,
        direction: int,
        **fields: Any,
    ) -> UUID:
        mine = fields.pop("client_port", 0) or self.new_port()
        common: dict[str, Any] = {
            "node": self.node,
            "direction": "ingress" if direction == INGRESS else "egress",
            "endpoint": (server if direction == INGRESS else client).end.endpoint,
            "source": f"{client.address}:{mine}",
            "destination": f"{server.address}:{port}",
            "source_identity": client.end.identity,
            "destination_identity": server.end.identity,
        }
        told = {"direction": direction, "packets": 0, **fields}
        asked = L7Record(
            time=self.now_ns,
            type="request",
            verdict="dropped" if dropped else "forwarded",
            **common,
            **request,
        )
        found = self.add(
            RowType.L7,
            client,
            server,
            l7=asked,
            **{
                "source_port": mine,
                "destination_port": port,
                "reply": Reply.NO,
                "verdict": Verdict.DROPPED if dropped else Verdict.FORWARDED,
                **told,
            },
        )
        if answer is not None:
            answered = L7Record(
                time=self.now_ns,
                type="response",
                verdict="dropped" if dropped else "forwarded",
                latency_ns=latency_ns,
                **common,
                **answer,
            )
            ports = {"source_port": port, "destination_port": mine, "reply": Reply.YES}
            self.add(RowType.L7, server, client, l7=answered, **{**ports, **told})
        return found

    def table(self) -> Table:
        """All rows so far."""
        rows = np.zeros(len(self._rows), ROW)
        for index, row in enumerate(self._rows):
            for name, value in row.items():
                rows[name][index] = np.void(value) if isinstance(value, bytes) else value
        return Table(
            self.node,
            self.instance,
            rows,
            tuple(self._ends),
            tuple(self._names),
            tuple(self._services),
            tuple(self._rules),
            tuple(self._l7),
        )


def pieces(table: Table, size: int) -> Iterable[Table]:
    """*table* as several with at most *size* rows each."""
    for start in range(0, len(table.rows), size):
        yield Table(
            table.node,
            table.instance,
            table.rows[start : start + size],
            table.ends,
            table.names,
            table.services,
            table.rules,
            table.l7,
        )


def _index(known: dict[Thing, int], thing: Thing) -> int:
    """Index + 1 of *thing* among *known*, where it is from now on."""
    return known.setdefault(thing, len(known) + 1)
