"""Whether communication fails, and on which layer: policy, network, DNS, TCP or HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from cirri.engine.ports import PROTOCOL_NAMES
from cirri.history.question_dns import POLICY, DnsProblems
from cirri.history.question_http import is_error
from cirri.history.question_tcp import Connections
from cirri.history.questions import ranked, when
from cirri.history.rows import RowType
from cirri.history.seen import Groups, Pair, Seen
from cirri.layout import drop_text
from cirri.model.records import L7Record

Layer = Literal["policy", "network", "dns", "tcp", "http"]
TCP_PROBLEMS = {
    "refused": "connection refused",
    "unanswered": "no answer",
    "by_client": "reset by the client",
    "by_server": "reset by the server",
}


class Failure(Struct, frozen=True, kw_only=True):
    """One way in which communication of two fails."""

    client: str
    server: str
    port: int
    protocol: str
    layer: Layer
    """``policy``: Cirri dropped or refused it as it was told to; ``network``: dropped for another reason;
    ``dns``, ``http``: what the server answered, or that it did not; ``tcp``: likewise, of connections."""
    problem: str
    count: int
    last: str


@dataclass
class _Noted:
    count: int = 0
    last_ns: int = 0


class Failing:
    """What fails between whom, and why."""

    def __init__(self) -> None:
        self._found: dict[tuple[Pair, Layer, str], _Noted] = {}
        self._connections = Connections()
        self._lookups = DnsProblems()

    def take(self, seen: Seen) -> None:
        """As a question does."""
        self._connections.take(seen)
        self._lookups.take(seen)
        dropped = seen.where(seen.rows["type"] == RowType.DROP)
        pair, pairs = dropped.pairs()
        number = pair.codes()
        groups = Groups(dropped.rows["time"], number, dropped.rows["reason"])
        denied = dropped.denied()
        for index, count in zip(groups.last, groups.sums(dropped.rows["type"] != 0), strict=True):
            layer: Layer = "policy" if denied[index] else "network"
            problem = drop_text(int(dropped.rows["reason"][index]))
            self._note((pairs[number[index]], layer, problem), count, int(dropped.rows["time"][index]))
        for index, record in seen.requests():
            if (found := request_problem(record)) is not None:
                self._note((seen.pair(index), *found), 1, record.time)

    def _note(self, key: tuple[Pair, Layer, str], count: int, time_ns: int) -> None:
        one = self._found.setdefault(key, _Noted())
        one.count += count
        one.last_ns = max(one.last_ns, time_ns)

    def answer(self) -> list[Failure]:
        """Every way, the most frequent first."""
        found = dict(self._found)
        for (_, _, problem), one in self._lookups.troubles():
            layer: Layer = "policy" if problem == POLICY else "dns"
            before = found.get((one.pair, layer, problem), _Noted())
            noted = _Noted(before.count + one.count, max(before.last_ns, one.last_ns))
            found[one.pair, layer, problem] = noted
        for pair, fates in self._connections.fates():
            counts = {
                "refused": fates.refused,
                "unanswered": fates.unanswered - fates.stopped,
                "by_client": fates.by_client,
                "by_server": fates.by_server,
            }
            for name, count in counts.items():
                if count:
                    found[pair, "tcp", TCP_PROBLEMS[name]] = _Noted(count, fates.last_ns)
        failures = [
            Failure(
                client=pair.client,
                server=pair.server,
                port=pair.port,
                protocol=PROTOCOL_NAMES.get(pair.protocol, str(pair.protocol)),
                layer=layer,
                problem=problem,
                count=one.count,
                last=when(one.last_ns),
            )
            for (pair, layer, problem), one in found.items()
        ]
        return ranked(failures, lambda one: one.count)


def request_problem(record: L7Record) -> tuple[Layer, str] | None:
    """The layer and the problem that *record*, if it is none of a lookup, tells of; None: of none."""
    if record.dns is not None:
        return None
    if record.type == "request":
        return ("policy", "request refused") if record.verdict == "dropped" else None
    # The answer to what policy refuses is told with the request.
    if record.verdict != "dropped" and record.http is not None and is_error(record.http.code):
        return "http", f"HTTP {record.http.code}" if record.http.code else "no answer"
    return None
