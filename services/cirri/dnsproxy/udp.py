"""Questions over UDP: what the compiled edge (:mod:`cirri.dnsproxy.core`) cannot repeat is decided here."""

from __future__ import annotations

import os
import socket
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable

from cirri.dnsproxy.core import Core, Event, Kind
from cirri.dnsproxy.desk import Asked, Desk
from cirri.dnsproxy.inflight import SIZE, SLOTS, Inflight
from cirri.dnsproxy.message import Answer, Malformed, folded, question_end
from cirri.dnsproxy.rules import REFUSED
from cirri.dnsproxy.slots import Question
from cirri.dnsproxy.sockets import packed_address
from cirri.dnsproxy.watch import PER_LOOK

LEASE_S = 1.0
"""How long decisions are repeated while we stand still."""
PORTION, PORTION_S = 4, 0.002
"""Records that are made at once, and the pause behind them: who is on the way of an answer waits no longer
than that for the CPU."""


class Relay:
    """Everything over UDP of one instance."""

    def __init__(self, loop: AbstractEventLoop, desk: Desk, inflight: Inflight) -> None:
        self._loop, self._desk, self._counts = loop, desk, desk.counts
        self.core = Core(inflight.memories, SLOTS, SIZE)
        desk.core = self.core
        desk.openings.facts.doubt = self.core.forget
        self._listening: list[socket.socket] = []
        self._told: list[Event] = []
        """Of which there are no records yet."""
        loop.add_reader(self.core.events_fd, self._woken)

    def listen(self, shared: Iterable[socket.socket]) -> None:
        """Take questions from *shared* sockets."""
        self.look()
        for one in shared:
            self.core.listen(one)
            self._listening.append(one)

    def stop(self) -> None:
        """Take no more; what is under way goes on for a while."""
        self.core.deaf()
        self.look()

    @property
    def waiting(self) -> int:
        """Questions that wait for an answer."""
        self._desk.watch.missed += self.core.count(self._counts)
        return self.core.waiting

    def close(self) -> None:
        """Give every socket back."""
        self._loop.remove_reader(self.core.events_fd)
        self.core.close()

    def take(self, questions: Iterable[Question]) -> None:
        """Take over what another process had not done."""
        for question in questions:
            self.core.put(*question)

    def look(self) -> None:
        """Now and then, well within :data:`LEASE_S`: go on, make records."""
        watch = self._desk.watch
        watch.missed += self.core.count(self._counts)
        idle = not self._told
        self._told += self.core.take(records=True)
        if idle:
            self._record()
        self.core.lease(LEASE_S, PER_LOOK)
        self._work()  # what is not urgent

    def _record(self) -> None:
        watch = self._desk.watch
        for event in self._told[:PORTION]:
            if asked := self._asked(event):
                watch.heard(event, asked)
            else:
                watch.missed += 1
        del self._told[:PORTION]
        if self._told:
            self._loop.call_later(PORTION_S, self._record)

    def _woken(self) -> None:
        self.core.woken()
        self._work()

    def _work(self) -> None:
        """Questions and answers that are not like those before them."""
        openings, events = self._desk.openings, list(self.core.take())
        if not events:
            return
        openings.refresh()
        for event in events:
            if event.kind == Kind.QUESTION:
                self._question(event)
            elif event.kind == Kind.ANSWER:
                self._answer(event)
            elif event.kind == Kind.AGING:
                self._aging(event)
            else:
                self._desk.cannot(event.server, os.strerror(event.number))
        openings.flush()
        self.core.flush()

    def _question(self, event: Event) -> None:
        desk = self._desk
        pod = desk.pods.get(packed_address(event.client))
        if pod is None:  # not any more
            self._counts.strangers += 1
            self.core.reply(event.id, b"")
            return
        try:
            end, rule, judge = desk.decide(pod, socket.IPPROTO_UDP, event.server, event.query)
        except Malformed:
            self.core.reply(event.id, desk.objection(event.query))
            return
        if rule == REFUSED:
            question = folded(event.query, end)
            asked = Asked(
                pod, event.client, event.server, judge.server, question, rule, event.began, event.query
            )
            self.core.reply(event.id, desk.refuse(asked, end))
            return
        self.core.route(pod.identity, event.server, judge.names.number, judge.server)
        self.core.ask(event.id, judge.names.number, judge.server, rule)

    def _answer(self, event: Event) -> None:
        """One message of a server to a pod: nothing, unless it answers a question."""
        desk, asked = self._desk, self._asked(event)
        if asked is None:
            return
        answer = desk.believe(asked.question, event.answer)
        if answer is None or not self.core.believed(event.id):
            return
        desk.watch.answered(asked, event.answer, answer, event.now)

        def give() -> None:
            self._counts.answers += 1
            self._know(asked, answer)
            self.core.reply(event.id, event.answer)

        self._open(asked, answer, give)

    def _aging(self, event: Event) -> None:
        """What the pod was told is to last longer."""
        asked = self._asked(event)
        answer = self._desk.believe(asked.question, event.answer) if asked else None
        if asked and answer:
            self._open(asked, answer, lambda: self._know(asked, answer))

    def _open(self, asked: Asked, answer: Answer, release: Callable[[], None]) -> None:
        """Have *release* called when the kernel has the addresses."""
        name = asked.question[:-4]
        if asked.pod.knows(name, answer.addresses, time.time()):
            release()
        else:
            self._desk.openings.submit(asked.pod, name, answer.addresses, release)

    def _know(self, asked: Asked, answer: Answer) -> None:
        """From here on answers like this one need us no more, if the kernel has its addresses."""
        pod, name = asked.pod, asked.question[:-4]
        if answer.addresses and pod.knows(name, answer.addresses, time.time()):
            known = pod.names[name]
            self.core.know(pod.id, name, tuple((address, known[address]) for address, _ in answer.addresses))

    def _asked(self, event: Event) -> Asked | None:
        """The question of an event about one that was passed; None: its pod is gone."""
        pod = self._desk.openings.facts.pods.get(event.pod)
        if pod is None:
            return None
        question = folded(event.query, question_end(event.query))
        return Asked(
            pod, event.client, event.server, event.identity, question, event.number, event.began, event.query
        )
