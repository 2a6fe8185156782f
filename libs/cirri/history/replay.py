"""What was seen, asked again: the ends of flows as parties of a world in which policies say what they say.

Labels, names and addresses are those that the rows have; what policies make of them is the world's affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np

from cirri.engine.l7 import Answer, DnsQuery, HttpRequest, Request, TlsHello
from cirri.engine.ports import PROTOCOL_NAMES
from cirri.history.rows import Reply, RowType
from cirri.history.seen import FROM_POINTS, Numbers, Seen
from cirri.labels import CIDR, CLUSTER_KEY, Label, world_label
from cirri.layout import TraceState
from cirri.model import Resource
from cirri.model.flows import End
from cirri.model.records import L7Record
from cirri.whatif.ask import Side, proxy_reason, reason, sides
from cirri.whatif.endpoints import ENDPOINTS, NODES, WORLD
from cirri.whatif.explain import Destination, destination
from cirri.whatif.learnt import known_as, spoken_of
from cirri.whatif.live import world_of
from cirri.whatif.party import Party, Setting
from cirri.whatif.port import Port
from cirri.whatif.world import World


class Place(NamedTuple):
    """One end, as far as policies can tell it from others."""

    labels: frozenset[str]
    node: str = ""
    address: str = ""
    """Of what is outside the cluster."""
    names: tuple[str, ...] = ()
    """That DNS gave the address for."""


class Asked(NamedTuple):
    """What is asked of policies: may this connection begin, and may this request pass over it?"""

    client: Place
    server: Place
    port: Port
    request: Request | None = None


@dataclass
class Tally:
    """How often something was seen."""

    client: str
    server: str
    """Names of the latest ends."""
    passed: int = 0
    """Connections, or requests."""
    stopped: int = 0
    """Packets, or requests."""
    first_ns: int = 0
    last_ns: int = 0
    uuid: str = ""
    """Of the latest row."""

    def note(self, seen: Seen, index: int, *, passed: int, stopped: int, first_ns: int) -> None:
        """Count rows of which *index* is the latest."""
        self.passed += passed
        self.stopped += stopped
        self.first_ns = min(self.first_ns or first_ns, first_ns)
        if (time_ns := int(seen.rows["time"][index])) >= self.last_ns:
            self.last_ns, self.uuid = time_ns, seen.uuid(index)
            self.client, self.server = (seen.party(index, server=each, pods=True) for each in (False, True))


@dataclass
class Traffic:
    """All that was seen, each thing once."""

    found: dict[Asked, Tally] = field(default_factory=dict)

    def take(self, seen: Seen) -> None:
        """As a question does."""
        seen = seen.where(askable(seen))
        for index, record in seen.requests():
            if record.type == "request":
                refused = record.verdict == "dropped"
                self._note(asked(seen, index), seen, index, passed=not refused, stopped=refused)
        seen = seen.where(seen.rows["type"] != RowType.L7)
        groups = seen.by_ends()
        for index, passed, stopped in zip(
            groups.last, groups.sums(seen.opening()), groups.sums(seen.denied()), strict=True
        ):
            self._note(asked(seen, index), seen, index, passed=passed, stopped=stopped)

    def _note(self, about: Asked, seen: Seen, index: int, *, passed: int, stopped: int) -> None:
        tally = self.found.setdefault(about, Tally("", ""))
        time_ns = int(seen.rows["time"][index])
        tally.note(seen, index, passed=passed, stopped=stopped, first_ns=time_ns)

    def answer(self) -> Mapping[Asked, Tally]:
        """All of it."""
        return self.found


def askable(seen: Seen) -> Numbers:
    """Which rows tell of something that policy is asked about."""
    rows = seen.rows
    trace = (rows["type"] == RowType.TRACE) & ~np.isin(rows["point"], FROM_POINTS)
    trace &= (rows["reply"] != Reply.UNKNOWN) & (rows["state"] != TraceState.RELATED)
    told = np.isin(rows["type"], [RowType.POLICY_VERDICT, RowType.CONNECTION_CLOSED])
    found: Numbers = trace | told | seen.denied() | (rows["type"] == RowType.L7)
    # What a pod sends to itself does not meet policy.
    found &= (seen.address(server=False) != seen.address(server=True)).any(axis=1)
    return found


def asked(seen: Seen, index: int) -> Asked:
    """What row *index* asks."""
    rows = seen.rows
    number = int(rows["l7"][index])
    return Asked(
        place(seen, index, server=False),
        place(seen, index, server=True),
        Port(int(rows["protocol"][index]), int(seen.server_port[index])),
        request_of(seen.table.l7[number - 1]) if number else None,
    )


def request_of(record: L7Record) -> Request | None:
    """The request that *record* tells of."""
    server_name = record.tls.server_name if record.tls is not None else ""
    if (http := record.http) is not None:
        parts = urlsplit(http.url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return HttpRequest(http.method, path, http.host or parts.netloc, http.headers, server_name)
    if record.dns is not None:
        return DnsQuery(record.dns.query)
    return TlsHello(server_name) if record.tls is not None else None


def request_text(request: Request | None) -> str:
    """``GET /v1``, ``DNS api.example.com``; empty: none."""
    match request:
        case HttpRequest(method, path):
            return f"{method} {path}"
        case DnsQuery(name):
            return f"DNS {name}"
        case TlsHello(name):
            return f"TLS {name}".strip()
        case None:
            return ""


def port_text(port: Port) -> str:
    """``80/TCP``."""
    return f"{port.number}/{PROTOCOL_NAMES.get(port.protocol, port.protocol)}"


def place(seen: Seen, index: int, *, server: bool) -> Place:
    """An end of row *index*."""
    number = int((seen.server_end if server else seen.client_end)[index])
    end = seen.table.ends[number - 1] if number else End()
    labels = frozenset(end.labels)
    if labels & NODES:
        return Place(labels, end.node or ("" if "reserved:remote-node" in labels else seen.table.node))
    if labels and not labels & WORLD and not any(text.startswith(f"{CIDR}:") for text in labels):
        return Place(labels, end.node or (seen.table.node if end.endpoint else ""))
    # What a prefix is called depends on the policies, and which names mean the address, too.
    kept = frozenset(text for text in labels if text.startswith("reserved:"))
    names = int((seen.server_names if server else seen.client_names)[index])
    known = seen.table.names[names - 1] if names else ()
    return Place(kept, "", seen.address_text(index, server=server), known)


class Replay:
    """The world in which *resources* are in force, with everybody at *places*; *names* for those who are
    to be explained."""

    def __init__(
        self,
        resources: Sequence[Resource],
        places: Iterable[Place],
        names: Mapping[Place, str] | None = None,
    ) -> None:
        self._spoken = spoken_of(resources)
        self._names = names or {}
        self._parties: dict[Place, Party] = {}
        # Pods are those that were seen, as they were.
        kept = [one for one in resources if one.kind != "Pod"]
        self.world, self.warnings = world_of(kept, lambda setting: self._meet(places, setting))

    def _meet(self, places: Iterable[Place], setting: Setting) -> list[Party]:
        for number, each in enumerate(dict.fromkeys(places)):
            name = self._names.get(each, f"#{number}")
            self._parties[each] = self.described(each, setting, name=name)
        return list(self._parties.values())

    def described(self, place: Place, setting: Setting, *, name: str) -> Party:
        """*place* as a party called *name*."""
        if place.address:
            address = ip_address(place.address)
            fqdn = {text for each in place.names for text in known_as(self._spoken, each)}
            labels = frozenset({world_label(address.version), *fqdn, *(place.labels - WORLD)})
            return Party(name, labels, outside=address, addresses=())
        cluster = str(Label("k8s", CLUSTER_KEY, setting.config.cluster))
        special = any(text.startswith("reserved:") for text in place.labels)
        own = bool(place.labels & ENDPOINTS) if special else cluster in place.labels
        return Party(name, place.labels, "endpoint" if own else "peer", node=place.node, many=True)

    def party(self, place: Place) -> Party:
        """Who is at *place*: of nodes the object itself says it."""
        if place.labels & NODES and (node := self.world.parties.get(f"node:{place.node}")) is not None:
            return node
        return self.world.parties[self._parties[place].name]

    def explain(self, about: Asked, resources: Sequence[Resource]) -> Destination:
        """What policies say, rule by rule; *resources* are those with the pods.  Raises Contradiction."""
        source, target = self.party(about.client), self.party(about.server)
        return destination(self.world, resources, source, target, about.port, request=about.request)

    def decide(self, about: Asked) -> Decision:
        """What policies say.  Raises Contradiction."""
        source, target = self.party(about.client), self.party(about.server)
        found = sides(self.world, source, target, about.port) if source is not target or source.many else []
        answers: list[tuple[Side, Answer]] = []
        if about.request is not None and all(one.allowed for one in found):
            answers = [
                (
                    one,
                    self.world.answer(one.subject, one.direction, one.peer, about.port, about.request),
                )
                for one in found
                if one.verdict.redirect
            ]
        return Decision(self.world, tuple(found), tuple(answers))


@dataclass(frozen=True)
class Decision:
    """What the policies of both ends say about one thing."""

    world: World
    sides: tuple[Side, ...]
    answers: tuple[tuple[Side, Answer], ...] = ()
    """Of the proxies that are asked about the request."""

    @property
    def opens(self) -> bool:
        """Whether the connection may begin."""
        return all(one.allowed for one in self.sides)

    @property
    def allowed(self) -> bool:
        """Whether it may, and the request pass."""
        return self.opens and all(answer.allowed for _, answer in self.answers)

    @property
    def proxy(self) -> str:
        """The kind of proxy that reads requests; "": none does."""
        return next((one.verdict.redirect for one in self.sides if one.verdict.redirect), "")

    @property
    def reason(self) -> str:
        """Why, with the rules that decide."""
        wrong = [reason(self.world, one) for one in self.sides if not one.allowed]
        wrong += [proxy_reason(self.world, one, each) for one, each in self.answers if not each.allowed]
        right = [reason(self.world, one) for one in self.sides]
        return "; ".join(wrong or right) or "neither side is under policy here"
