"""Records of questions and answers; more of them than there is time for are counted instead."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

from cirri.dnsproxy.core import Event, Kind
from cirri.dnsproxy.message import HEADER, Answer, read_answer, text, type_name
from cirri.dnsproxy.sockets import spelled
from cirri.layout.address import address_of
from cirri.model.records import DnsFacts, L7Record, RecordType, Verdict
from cirri.runtime.records import RecordStream

if TYPE_CHECKING:
    from cirri.dnsproxy.desk import Asked

PER_LOOK = 50
"""Records that are made between two calls of :meth:`Watch.look`, twenty times a second, and as many of what
the compiled edge does by itself."""


class Watch:
    """Makes the records of one instance."""

    def __init__(self, stream: RecordStream, node: str) -> None:
        self._stream, self._node = stream, node
        self.room = PER_LOOK
        self.missed = 0
        """Records that were not made."""

    def look(self) -> None:
        """Now and then: there is time again."""
        self.room = PER_LOOK
        if self.missed:
            self._stream.lose(self.missed)
            self.missed = 0

    def heard(self, event: Event, asked: Asked) -> None:
        """The compiled edge has done something; it has kept to its own room."""
        self.room += 1
        if event.kind == Kind.PASSED:
            self._add(asked, "request", "forwarded", DnsFacts(), time_ns=event.time_ns)
        elif event.kind == Kind.ANSWERED:
            answer = read_answer(event.answer, HEADER + len(asked.question))
            self._answered(asked, event.answer, answer, event.now, event.time_ns)
        else:
            self._add(asked, "response", "error", DnsFacts(), time_ns=event.time_ns, message="no answer")

    def passed(self, asked: Asked) -> None:
        """A question goes to its server."""
        if self.room:
            self._add(asked, "request", "forwarded", DnsFacts())
        else:
            self.missed += 1

    def refused(self, asked: Asked, code: int) -> None:
        """A question is refused with *code*."""
        if self.room:
            self._add(asked, "request", "dropped", DnsFacts(rcode=code))
        else:
            self.missed += 1

    def answered(self, asked: Asked, message: bytes, answer: Answer, now: float) -> None:
        """Its answer came."""
        if self.room:
            self._answered(asked, message, answer, now, time.time_ns())
        else:
            self.missed += 1

    def failed(self, asked: Asked, why: str) -> None:
        """No answer came."""
        if self.room:
            self._add(asked, "response", "error", DnsFacts(), message=why)
        else:
            self.missed += 1

    def _answered(self, asked: Asked, message: bytes, answer: Answer, now: float, time_ns: int) -> None:
        facts = DnsFacts(
            rcode=message[3] & 0x0F,
            ips=tuple(_spelled(address) for address, _ in answer.addresses),
            cnames=tuple(map(text, answer.aliases)),
            ttl=min((ttl for _, ttl in answer.addresses), default=0),
        )
        latency_ns = int((now - asked.began) * 1e9)
        self._add(asked, "response", "forwarded", facts, time_ns=time_ns, latency_ns=latency_ns)

    def _add(
        self,
        asked: Asked,
        kind: RecordType,
        verdict: Verdict,
        facts: DnsFacts,
        *,
        time_ns: int = 0,
        latency_ns: int = 0,
        message: str = "",
    ) -> None:
        self.room -= 1
        query, qtypes = _asked(asked.question)
        record = L7Record(
            time=time_ns or time.time_ns(),
            node=self._node,
            type=kind,
            verdict=verdict,
            direction="egress",
            endpoint=asked.pod.id,
            source=_end(asked.client),
            destination=_end(asked.server),
            source_identity=asked.pod.identity,
            destination_identity=asked.identity,
            latency_ns=latency_ns,
            rule=max(asked.rule, 0),
            message=message,
            dns=DnsFacts(
                query=query,
                qtypes=qtypes,
                rcode=facts.rcode,
                ips=facts.ips,
                cnames=facts.cnames,
                ttl=facts.ttl,
            ),
        )
        self._stream.add((record,))


@lru_cache(maxsize=4096)
def _end(raw: bytes) -> str:
    address, port = spelled(raw)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@lru_cache(maxsize=16384)
def _asked(question: bytes) -> tuple[str, tuple[str]]:
    """Its name and type."""
    return text(question[:-4]), (type_name(int.from_bytes(question[-4:-2], "big")),)


@lru_cache(maxsize=16384)
def _spelled(address: bytes) -> str:
    return str(address_of(address))
