"""TCP connections that nobody answered, that were refused, and that were broken off.

Of each connection five bits and two times are kept, so a connection that two nodes tell of, or that is
told of twice, is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from socket import IPPROTO_TCP
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from cirri.history.questions import ranked, share, when
from cirri.history.rows import Reply, RowType
from cirri.history.seen import ACK, RST, SYN, Numbers, Pair, Seen

OPENED, ANSWERED, RESET_BY_CLIENT, RESET_BY_SERVER, STOPPED = 1, 2, 4, 8, 16
"""What was seen of a connection; STOPPED: its first packet was dropped."""
KEPT = np.dtype([("key", "<u8", 5), ("pair", "<u4"), ("said", "u1"), ("first", "<u8"), ("last", "<u8")])
"""A connection: addresses and ports, who it is between, what was seen of it and when."""
COMPACT_AT = 1 << 20
"""Rows that may lie about before those of one connection become one."""
SETTLED_NS = 1_800_000_000_000
"""After so long without news a connection is no longer kept, but counted."""
GRACE_NS = 1_000_000_000
"""So long an answer may take: TCP sends its SYN again after a second (RFC 6298)."""


@dataclass
class Fates:
    """Of the connections of one pair, how many ended how."""

    opened: int = 0
    unanswered: int = 0
    stopped: int = 0
    """Of the unanswered ones, those that were dropped on their way."""
    refused: int = 0
    """The server answered with a reset."""
    by_client: int = 0
    """Broken off by the client, by a reset."""
    by_server: int = 0
    last_ns: int = 0
    """When the last one of them began that did not do well."""


class Connections:
    """What becomes of TCP connections, by pair."""

    def __init__(self) -> None:
        self._pairs: dict[Pair, int] = {}
        self._kept: list[Numbers] = []
        self._rows, self._compact_at = 0, COMPACT_AT
        self._newest_ns = 0
        self._settled: dict[str, Numbers] = {}

    def take(self, seen: Seen) -> None:
        """Take these rows into account."""
        rows = seen.rows
        if len(rows):
            self._newest_ns = max(self._newest_ns, int(rows["time"].max()))
        syn = rows["tcp_flags"] & (SYN | ACK) == SYN
        known = (rows["type"] == RowType.TRACE) & (rows["reply"] != Reply.UNKNOWN)
        dropped = (rows["type"] == RowType.DROP) & syn
        seen = seen.where((rows["protocol"] == IPPROTO_TCP) & (known | dropped))
        rows = seen.rows
        if not len(rows):
            return
        answer, reset = rows["reply"] == Reply.YES, rows["tcp_flags"] & RST != 0
        opening = ~answer & (rows["tcp_flags"] & (SYN | ACK) == SYN)
        found = np.zeros(len(rows), KEPT)
        found["key"][:, 0:2] = seen.address(server=False)
        found["key"][:, 2:4] = seen.address(server=True)
        found["key"][:, 4] = seen.client_port.astype(np.uint64) << 16 | seen.server_port
        found["said"] = (
            OPENED * opening
            | ANSWERED * (answer & ~reset)
            | RESET_BY_CLIENT * (~answer & reset)
            | RESET_BY_SERVER * (answer & reset)
            | STOPPED * (rows["type"] == RowType.DROP)
        )
        groups, pairs = seen.pairs()
        numbers = [self._pairs.setdefault(pair, len(self._pairs)) for pair in pairs]
        found["pair"] = np.array(numbers, np.uint32)[groups.codes()]
        found["first"] = found["last"] = rows["time"]
        self._kept.append(found)
        self._rows += len(found)
        if self._rows > self._compact_at:
            self._settle()
            # What is left are connections: next when as much again lies about.
            self._compact_at = self._rows + COMPACT_AT

    def fates(self) -> Iterator[tuple[Pair, Fates]]:
        """What became of the connections of each pair; one that began just now counts as answered."""
        sums = self._sums(self._compact())
        for number, pair in enumerate(self._pairs):
            yield pair, Fates(**{name: int(values[number]) for name, values in sums.items()})

    def _sums(self, every: Numbers) -> dict[str, Numbers]:
        """Fields of each pair's fates, by its number: of the connections *every* and the settled ones."""
        said, pairs = every["said"], every["pair"]
        opened, answered = said & OPENED != 0, said & ANSWERED != 0
        client, server = said & RESET_BY_CLIENT != 0, said & RESET_BY_SERVER != 0
        late = every["first"].astype(np.int64) <= self._newest_ns - GRACE_NS
        stopped = said & STOPPED != 0
        silent = opened & ~answered & ~server
        bad = {
            "unanswered": silent & (late | stopped),
            "stopped": silent & stopped,
            "refused": opened & ~answered & server,
            # Without its opening it began before the time that is asked about.
            "by_client": (answered | ~opened) & client,
            "by_server": (answered | ~opened) & server,
        }
        last = np.zeros(len(self._pairs), np.uint64)
        wrong = np.logical_or.reduce(list(bad.values()))
        np.maximum.at(last, pairs[wrong], every["last"][wrong])
        sums: dict[str, Numbers] = {"last_ns": last}
        for name, mask in {"opened": opened, **bad}.items():
            sums[name] = np.bincount(pairs[mask], minlength=len(self._pairs))
        for name, values in self._settled.items():
            add = np.maximum if name == "last_ns" else np.add
            sums[name][: len(values)] = add(sums[name][: len(values)], values)
        return sums

    def _settle(self) -> None:
        """Keep only sums of connections that nothing was heard of for long."""
        every = self._compact()
        old = every["last"].astype(np.int64) < self._newest_ns - SETTLED_NS
        self._settled = self._sums(every[old])
        self._kept = [every[~old]]
        self._rows = len(self._kept[0])

    def _compact(self) -> Numbers:
        """One row for each connection."""
        rows = np.concatenate([np.empty(0, KEPT), *self._kept])
        if not len(rows):
            return rows
        order = np.lexsort(tuple(rows["key"].T))
        rows = rows[order]
        changed = np.ones(len(rows), bool)
        changed[1:] = (rows["key"][1:] != rows["key"][:-1]).any(axis=1)
        starts = np.flatnonzero(changed)
        found = rows[starts]
        found["said"] = np.bitwise_or.reduceat(rows["said"], starts)
        found["first"] = np.minimum.reduceat(rows["first"], starts)
        found["last"] = np.maximum.reduceat(rows["last"], starts)
        self._kept, self._rows = [found], len(found)
        return found


class Broken(Struct, frozen=True, kw_only=True):
    """Connections of two that were interrupted, or never came to be."""

    client: str
    server: str
    port: int
    connections: int
    """That were tried in this time."""
    refused: int
    """The server answered with a reset: nobody listens there."""
    timed_out: int
    """Nobody answered."""
    reset_by_client: int
    """Broken off after they had been established."""
    reset_by_server: int
    last: str


class Interrupted:
    """TCP connections that were interrupted or timed out."""

    def __init__(self) -> None:
        self._connections = Connections()

    def take(self, seen: Seen) -> None:
        """As a question does."""
        self._connections.take(seen)

    def answer(self) -> list[Broken]:
        """Every pair of which one was, the worst first."""
        found = [
            (
                fates.refused + fates.unanswered + fates.by_client + fates.by_server,
                Broken(
                    client=pair.client,
                    server=pair.server,
                    port=pair.port,
                    connections=fates.opened,
                    refused=fates.refused,
                    timed_out=fates.unanswered,
                    reset_by_client=fates.by_client,
                    reset_by_server=fates.by_server,
                    last=when(fates.last_ns),
                ),
            )
            for pair, fates in self._connections.fates()
        ]
        bad = ranked(((count, one) for count, one in found if count), lambda each: each[0])
        return [one for _, one in bad]


class Silence(Struct, frozen=True, kw_only=True):
    """Connections of two that nobody answered."""

    client: str
    server: str
    port: int
    connections: int
    """That were tried in this time."""
    unanswered: int
    dropped: int
    """Of those, the ones that Cirri dropped; the others' server did not answer."""
    percent: float
    per_minute: float
    """Unanswered ones, over the time in which flows were seen."""
    last: str


class Unanswered:
    """How many TCP connections (SYN) nobody answers, and whose."""

    def __init__(self) -> None:
        self._connections = Connections()
        self._between: _Span | None = None

    def take(self, seen: Seen) -> None:
        """As a question does."""
        self._connections.take(seen)
        if len(times := seen.rows["time"]):
            now = _Span(int(times.min()), int(times.max()))
            before = self._between or now
            self._between = _Span(min(now.first_ns, before.first_ns), max(now.last_ns, before.last_ns))

    def answer(self) -> list[Silence]:
        """Every pair with one, the most first."""
        span = self._between or _Span(0, 0)
        minutes = max((span.last_ns - span.first_ns) / 60e9, 1 / 60)
        found = [
            Silence(
                client=pair.client,
                server=pair.server,
                port=pair.port,
                connections=fates.opened,
                unanswered=fates.unanswered,
                dropped=fates.stopped,
                percent=share(fates.unanswered, fates.opened),
                per_minute=round(fates.unanswered / minutes, 2),
                last=when(fates.last_ns),
            )
            for pair, fates in self._connections.fates()
            if fates.unanswered
        ]
        return ranked(found, lambda one: one.unanswered)


class _Span(NamedTuple):
    first_ns: int
    last_ns: int
