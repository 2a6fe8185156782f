"""HTTP calls, the errors among their answers, and how long answers take."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from msgspec import Struct

from cirri.history.questions import ranked, share, when
from cirri.history.seen import Pair, Seen
from cirri.model.records import HttpFacts, L7Record

PRECISION = 0.01
"""A percentile is at most so much (1 %) away from the value."""
_GROWTH = math.log((1 + PRECISION) / (1 - PRECISION))


class Call(Struct, frozen=True, kw_only=True):
    """One kind of HTTP request between two."""

    client: str
    server: str
    method: str
    path: str
    """Without the query."""
    requests: int
    refused: int
    """By policy."""
    codes: dict[str, int]
    """Answers by their code; 0: the server gave none."""
    last: str


@dataclass
class _Calls:
    requests: int = 0
    refused: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    last_ns: int = 0


class HttpCalls:
    """Which HTTP calls are made."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str, str], _Calls] = {}

    def take(self, seen: Seen) -> None:
        """As a question does."""
        for index, record in seen.requests():
            if (http := record.http) is None:
                continue
            client, server = seen.party(index, server=False), seen.party(index, server=True)
            key = client, server, http.method, urlsplit(http.url).path or "/"
            calls = self._found.setdefault(key, _Calls())
            if record.type == "request":
                calls.requests += 1
                calls.refused += record.verdict == "dropped"
            else:
                calls.codes[str(http.code)] += 1
            calls.last_ns = max(calls.last_ns, record.time)

    def answer(self) -> list[Call]:
        """Every one, the most frequent first."""
        found = [
            Call(
                client=client,
                server=server,
                method=method,
                path=path,
                requests=max(calls.requests, calls.codes.total()),
                refused=calls.refused,
                codes=dict(sorted(calls.codes.items())),
                last=when(calls.last_ns),
            )
            for (client, server, method, path), calls in self._found.items()
        ]
        return ranked(found, lambda one: one.requests)


class Errors(Struct, frozen=True, kw_only=True):
    """How many HTTP answers of one server, or of all (``*``), are errors."""

    server: str
    """The Service that was addressed if that is known, else the workload."""
    answers: int
    client_errors: int
    """4xx."""
    server_errors: int
    """5xx, and requests without an answer."""
    client_error_percent: float
    server_error_percent: float
    refused: int
    """Of the 4xx, those by which policy refused a request."""
    codes: dict[str, int]
    """The errors by their code."""
    last: str
    """Error."""


@dataclass
class _Answers:
    answers: int = 0
    refused: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    last_ns: int = 0

    def note(self, record: L7Record, http: HttpFacts) -> None:
        """Count an answer, or a request that was refused."""
        if record.type == "request":
            self.refused += record.verdict == "dropped"
            return
        self.answers += 1
        if is_error(http.code):
            self.codes[http.code] += 1
            self.last_ns = max(self.last_ns, record.time)


def is_error(code: int) -> bool:
    """4xx, 5xx, or no answer at all."""
    return code >= 400 or not code


class HttpErrors:
    """Rates of 4xx and 5xx, of each server and of the cluster."""

    def __init__(self) -> None:
        self._found: dict[str, _Answers] = {"*": _Answers()}

    def take(self, seen: Seen) -> None:
        """As a question does."""
        for index, record in seen.requests():
            if record.http is not None:
                for name in ("*", _service(seen, index)):
                    self._found.setdefault(name, _Answers()).note(record, record.http)

    def answer(self) -> list[Errors]:
        """Every server, the cluster (``*``) first, then by the share of 5xx and of 4xx."""
        found = [_errors(name, said) for name, said in self._found.items() if said.answers]
        return sorted(
            found,
            key=lambda one: (
                one.server != "*",
                -one.server_error_percent,
                -one.client_error_percent,
                one.server,
            ),
        )


def _errors(name: str, said: _Answers) -> Errors:
    client = sum(count for code, count in said.codes.items() if 400 <= code < 500)
    server = said.codes.total() - client
    return Errors(
        server=name,
        answers=said.answers,
        client_errors=client,
        server_errors=server,
        client_error_percent=share(client, said.answers),
        server_error_percent=share(server, said.answers),
        refused=said.refused,
        codes={str(code): count for code, count in sorted(said.codes.items())},
        last=when(said.last_ns),
    )


def _service(seen: Seen, index: int) -> str:
    """The Service that row *index* went to, else the server."""
    if number := int(seen.server_service[index]):
        service = seen.table.services[number - 1]
        return f"{service.namespace}/{service.name}"
    return seen.party(index, server=True)


class Histogram:
    """Times in buckets that grow with them, so that percentiles are right to :data:`PRECISION`.

    Source: Masson et al., "DDSketch", VLDB 2019, section 2.1.
    """

    def __init__(self) -> None:
        self.count, self.most = 0, 0
        self._buckets: Counter[int] = Counter()

    def add(self, value: int) -> None:
        """Note one time, ns."""
        self.count += 1
        self.most = max(self.most, value)
        self._buckets[math.ceil(math.log(max(value, 1)) / _GROWTH)] += 1

    def percentile(self, percent: float) -> int:
        """The time that *percent* of all are at most."""
        wanted, seen = math.ceil(self.count * percent / 100), 0
        for bucket, count in sorted(self._buckets.items()):
            seen += count
            if seen >= wanted:
                return min(self.most, round(math.exp(bucket * _GROWTH) * (1 - PRECISION)))
        return 0


class Took(Struct, frozen=True, kw_only=True):
    """How long the answers of one server to one client took, in milliseconds."""

    client: str
    server: str
    port: int
    protocol: str
    """``http``, ``dns``, ``tls``."""
    answers: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


class Latency:
    """Percentiles of latency between each two."""

    def __init__(self) -> None:
        self._found: dict[tuple[Pair, str], Histogram] = {}

    def take(self, seen: Seen) -> None:
        """As a question does."""
        for index, record in seen.requests():
            if record.type == "response" and record.verdict != "error":
                key = seen.pair(index), protocol_of(record)
                self._found.setdefault(key, Histogram()).add(record.latency_ns)

    def answer(self) -> list[Took]:
        """Every pair, the slowest (p99) first."""
        found = [
            Took(
                client=pair.client,
                server=pair.server,
                port=pair.port,
                protocol=protocol,
                answers=times.count,
                p50_ms=_ms(times.percentile(50)),
                p95_ms=_ms(times.percentile(95)),
                p99_ms=_ms(times.percentile(99)),
                max_ms=_ms(times.most),
            )
            for (pair, protocol), times in self._found.items()
        ]
        return ranked(found, lambda one: one.p99_ms)


def protocol_of(record: L7Record) -> str:
    """What *record* is of."""
    return "http" if record.http is not None else "dns" if record.dns is not None else "tls"


def _ms(time_ns: int) -> float:
    return round(time_ns / 1e6, 3)
