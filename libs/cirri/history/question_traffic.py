"""Who talks to whom, who reaches in from outside, and what policy blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from msgspec import Struct

from cirri.engine.ports import PROTOCOL_NAMES
from cirri.history.questions import ranked, when
from cirri.history.replay import Asked, asked
from cirri.history.rows import RowType, Verdict
from cirri.history.seen import Groups, Pair, Seen
from cirri.layout import PolicyDirection, drop_text
from cirri.model.flows import End, RuleRef
from cirri.model.records import L7Record

STOPPING = (Verdict.DROPPED, Verdict.AUDIT)
REFUSED, AUDITED = "refused by the proxy", "audited"
DIRECTIONS = {int(each): each.name.lower() for each in PolicyDirection}


class Talk(Struct, frozen=True, kw_only=True):
    """One edge of the service map."""

    client: str
    server: str
    port: int
    protocol: str
    connections: int
    """That began in this time and got through."""
    requests: int
    """That proxies read, also those that they refused."""
    denied: int
    """Packets and requests that policy stopped."""
    packets: int
    """Of both directions."""
    bytes: int
    last: str


@dataclass
class _Sums:
    connections: int = 0
    requests: int = 0
    denied: int = 0
    packets: int = 0
    bytes: int = 0
    last_ns: int = 0


class Map:
    """Who talks to whom, how often: what a graph of dependencies is drawn from."""

    def __init__(self) -> None:
        self._sums: dict[Pair, _Sums] = {}

    def take(self, seen: Seen) -> None:
        """As a question does."""
        seen = seen.where(seen.counted() | seen.denied() | seen.asking())
        groups, pairs = seen.pairs()
        counted = seen.counted()
        for pair, last, opened, requests, denied, packets, size in zip(
            pairs,
            groups.latest,
            groups.sums(seen.opening()),
            groups.sums(seen.asking()),
            groups.sums(seen.denied()),
            groups.sums(np.where(counted, seen.rows["packets"], 0)),
            groups.sums(np.where(counted, seen.rows["bytes"], 0)),
            strict=True,
        ):
            sums = self._sums.setdefault(pair, _Sums())
            sums.connections += opened
            sums.requests += requests
            sums.denied += denied
            sums.packets += packets
            sums.bytes += size
            sums.last_ns = max(sums.last_ns, last)

    def answer(self) -> list[Talk]:
        """Every edge, the busiest first."""
        found = [
            Talk(
                client=pair.client,
                server=pair.server,
                port=pair.port,
                protocol=PROTOCOL_NAMES.get(pair.protocol, str(pair.protocol)),
                connections=sums.connections,
                requests=sums.requests,
                denied=sums.denied,
                packets=sums.packets,
                bytes=sums.bytes,
                last=when(sums.last_ns),
            )
            for pair, sums in self._sums.items()
        ]
        return ranked(found, lambda one: max(one.connections, one.requests, one.denied))


class Reached(Struct, frozen=True, kw_only=True):
    """Somebody outside who came in, or tried to."""

    source: str
    """Its address."""
    names: tuple[str, ...]
    target: str
    port: int
    protocol: str
    connections: int
    denied: int
    """Packets and requests that policy stopped."""
    last: str


class External:
    """What was reached from outside the cluster."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, tuple[str, ...], str, int, int], list[int]] = {}

    def take(self, seen: Seen) -> None:
        """As a question does."""
        outside = [is_outside(end) for end in seen.table.ends]
        inward = seen.of_ends(outside, server=False) & ~seen.of_ends(outside, server=True)
        seen = seen.where(inward & (seen.opening() | seen.denied()))
        groups, pairs = seen.pairs(pods=True)
        for pair, index, latest, opened, denied in zip(
            pairs,
            groups.last,
            groups.latest,
            groups.sums(seen.opening()),
            groups.sums(seen.denied()),
            strict=True,
        ):
            names = int(seen.client_names[index])
            key = (
                seen.address_text(index, server=False),
                seen.table.names[names - 1] if names else (),
                seen.party(index, server=True),
                pair.port,
                pair.protocol,
            )
            sums = self._sums.setdefault(key, [0, 0, 0])
            sums[0] += opened
            sums[1] += denied
            sums[2] = max(sums[2], latest)

    def answer(self) -> list[Reached]:
        """Everybody, who came most often first."""
        found = [
            Reached(
                source=source,
                names=names,
                target=target,
                port=port,
                protocol=PROTOCOL_NAMES.get(protocol, str(protocol)),
                connections=opened,
                denied=refused,
                last=when(last),
            )
            for (source, names, target, port, protocol), (opened, refused, last) in self._sums.items()
        ]
        return ranked(found, lambda one: one.connections + one.denied)


class Block(Struct, frozen=True, kw_only=True):
    """What policy stops between two."""

    client: str
    server: str
    port: int
    protocol: str
    direction: str
    """``ingress``: the server's policy says so; ``egress``: the client's."""
    reason: str
    request: str
    """That a proxy refused; empty: the connection may not begin."""
    count: int
    """Packets, or requests."""
    last: str
    rule: RuleRef | None
    """That denies it; None: no rule allows it."""
    uuid: str
    """Of the last flow: what ``policy explain`` takes."""


@dataclass
class _Stopped:
    dropped: int = 0
    told: int = 0
    """Verdicts: a packet that is dropped has one, too."""
    last_ns: int = 0
    uuid: str = ""
    rule: RuleRef | None = None
    asked: Asked | None = None
    """Of the latest flow."""


class Blocked:
    """What is blocked by policy, and by which rule of it."""

    def __init__(self) -> None:
        self._found: dict[tuple[Pair, int, str, str], _Stopped] = {}

    def take(self, seen: Seen) -> None:
        """As a question does."""
        rows = seen.rows
        told = (rows["type"] == RowType.POLICY_VERDICT) & np.isin(rows["verdict"], STOPPING)
        seen = seen.where(seen.denied() | told)
        for index, record in seen.requests():
            key = (
                seen.pair(index, pods=True),
                int(seen.rows["direction"][index]),
                REFUSED,
                request_text(record),
            )
            self._note(key, seen, index, dropped=1)
        packets = seen.where(seen.rows["type"] != RowType.L7)
        rows = packets.rows
        pair, pairs = packets.pairs(pods=True)
        number = pair.codes()
        groups = Groups(rows["time"], number, rows["direction"], rows["reason"], rows["verdict"])
        dropped = groups.sums(rows["type"] == RowType.DROP)
        told = groups.sums(rows["type"] == RowType.POLICY_VERDICT)
        for index, drops, verdicts in zip(groups.last, dropped, told, strict=True):
            audited = rows["verdict"][index] == Verdict.AUDIT
            reason = AUDITED if audited else drop_text(int(rows["reason"][index]))
            key = pairs[number[index]], int(rows["direction"][index]), reason, ""
            self._note(key, packets, index, dropped=drops, told=verdicts)

    def _note(
        self, key: tuple[Pair, int, str, str], seen: Seen, index: int, *, dropped: int, told: int = 0
    ) -> None:
        """Count what row *index* is the latest of."""
        one = self._found.setdefault(key, _Stopped())
        one.dropped += dropped
        one.told += told
        if (rule := int(seen.rows["rule_ref"][index])) and one.rule is None:
            one.rule = seen.table.rules[rule - 1]
        if (time_ns := int(seen.rows["time"][index])) >= one.last_ns:
            one.last_ns, one.uuid = time_ns, seen.uuid(index)
            one.asked = asked(seen, index)

    def asked(self) -> dict[str, Asked]:
        """What the latest flow of each asked of policies, by its UUID."""
        return {one.uuid: one.asked for one in self._found.values() if one.asked is not None}

    def answer(self) -> list[Block]:
        """All of it, the most frequent first."""
        found = [
            Block(
                client=pair.client,
                server=pair.server,
                port=pair.port,
                protocol=PROTOCOL_NAMES.get(pair.protocol, str(pair.protocol)),
                direction=DIRECTIONS.get(direction, ""),
                reason=reason,
                request=request,
                count=max(one.dropped, one.told),
                last=when(one.last_ns),
                rule=one.rule,
                uuid=one.uuid,
            )
            for (pair, direction, reason, request), one in self._found.items()
        ]
        return ranked(found, lambda one: one.count)


def is_outside(end: End) -> bool:
    """Whether it is no pod and no node of the cluster."""
    return any(text.startswith("reserved:world") for text in end.labels)


def request_text(record: L7Record) -> str:
    """``GET http://api/v1``, ``DNS api.example.com``."""
    if record.http is not None:
        return f"{record.http.method} {record.http.url}"
    if record.dns is not None:
        return f"DNS {record.dns.query}"
    return f"TLS {record.tls.server_name}" if record.tls is not None else ""
