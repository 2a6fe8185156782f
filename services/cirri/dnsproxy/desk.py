"""What is decided about each question and each answer, whatever brings it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from cirri.dnsproxy.core import Core
from cirri.dnsproxy.counts import Counts
from cirri.dnsproxy.facts import Pod
from cirri.dnsproxy.kernel import Kernel
from cirri.dnsproxy.message import (
    FORMERR,
    HEADER,
    NOTIMP,
    NXDOMAIN,
    REFUSED,
    Answer,
    Malformed,
    Unanswerable,
    check_query,
    folded,
    read_answer,
    refusal,
)
from cirri.dnsproxy.opening import Openings
from cirri.dnsproxy.rules import Names, Rules
from cirri.dnsproxy.sockets import packed_address, spelled
from cirri.dnsproxy.watch import Watch
from cirri.layout.address import address16
from cirri.model.names import name_settings
from cirri.proxies import DnsRule, NodeProxies, ProxyEndpoint

_CODES = {"refused": REFUSED, "nameError": NXDOMAIN}
AGAIN_S = 1.0
"""How often servers' identities are looked up: policy may give them others."""
MOST_JUDGES = 512
"""Of those that are looked up again; where more are known, all are forgotten."""


class Asked(NamedTuple):
    """A question that waits for its answer."""

    pod: Pod
    client: bytes
    server: bytes
    """Where it came from and goes to, as the kernel writes addresses."""
    identity: int
    """Of the server."""
    question: bytes
    """Name in lower case, type and class."""
    rule: int
    began: float
    """Monotonic."""
    message: bytes


class Judge(NamedTuple):
    """By what a subject's questions to a server are judged."""

    names: Names
    server: int
    """The server's identity."""


class Desk:
    """The decisions of one instance."""

    def __init__(
        self, openings: Openings, kernel: Kernel, counts: Counts, watch: Watch, warn: Callable[..., None]
    ) -> None:
        self.openings, self.counts, self.watch = openings, counts, watch
        self.pods: dict[bytes, Pod] = {}
        """By address, 4 or 16 bytes."""
        self.by_address: dict[bytes, int] = {}
        """Numbers by address of 16 bytes."""
        self._kernel, self._warn = kernel, warn
        self._rules, self._refusal = Rules(), REFUSED
        self._dns: tuple[DnsRule, ...] = ()
        self._endpoints: tuple[ProxyEndpoint, ...] = ()
        self._judges: dict[tuple[int, int, bytes], Judge] = {}
        self._again_at = 0.0
        self.core: Core | None = None
        """What repeats our decisions about questions over UDP."""

    def adopt(self, told: NodeProxies) -> None:
        """Follow what the datapath service says."""
        if told.dns != self._dns:
            self._rules, self._dns = Rules(told.dns), told.dns
            self._forget()
        limits, _ = name_settings(told.settings)  # who applied them was told what is wrong
        self.openings.facts.limits = limits
        self._refusal = _CODES[limits.refusal]
        self.openings.adopt(told)
        if told.endpoints != self._endpoints:
            self._endpoints = told.endpoints
            self._forget()
            self._adopt_pods()

    def _adopt_pods(self) -> None:
        facts = self.openings.facts
        self.by_address.clear()
        self.by_address |= {
            address16(address): endpoint.id for endpoint in self._endpoints for address in endpoint.addresses
        }
        self.pods = {
            address[12:] if address.startswith(bytes(10) + b"\xff\xff") else address: facts.pods[number]
            for address, number in self.by_address.items()
        }
        if self.core is not None:
            self.core.pods((pod.id, pod.identity, address) for address, pod in self.pods.items())

    def decide(self, pod: Pod, protocol: int, server: bytes, message: bytes) -> tuple[int, int, Judge]:
        """(end of the question, cookie of the rule that lets it pass or ``REFUSED``, who says so).

        Raises: Malformed.
        """
        end = check_query(message)
        at = (pod.identity, protocol, server)
        judge = self._judges.get(at)
        if judge is None:
            judge = self._judges[at] = self._judge(*at)
        return end, judge.names.rule(message[HEADER : end - 4].lower()), judge

    def look(self) -> None:
        """Now and then: see whether servers have other identities."""
        if time.monotonic() <= self._again_at:
            return
        self._again_at = time.monotonic() + AGAIN_S
        if len(self._judges) > MOST_JUDGES:
            self._forget()
        for at, before in list(self._judges.items()):
            now = self._judges[at] = self._judge(*at)
            if self.core is not None and at[1] == socket.IPPROTO_UDP and now != before:
                self.core.route(at[0], at[2], now.names.number, now.server)

    def objection(self, message: bytes) -> bytes:
        """The answer to what cannot be decided about; empty: none."""
        self.counts.malformed += 1
        try:
            check_query(message)
        except Unanswerable:
            return b""
        except Malformed:
            return refusal(message, NOTIMP if message[2] & 0x78 else FORMERR)
        return b""

    def refuse(self, asked: Asked, end: int) -> bytes:
        """The answer to a question that no rule lets pass."""
        self.counts.refused += 1
        self.watch.refused(asked, self._refusal)
        return refusal(asked.message, self._refusal, end)

    def believe(self, question: bytes, message: bytes) -> Answer | None:
        """What *message* says about *question* (:func:`folded`); None: it is no answer to it, or broken."""
        end = HEADER + len(question)
        if len(message) < HEADER or not message[2] & 0x80:
            self.counts.spoofed += 1
            return None
        if message[4:6] != b"\0\1" or len(message) < end or folded(message, end) != question:
            if message[4:8] == bytes(4) and message[3] & 0x0F:  # an error may leave the question out
                return Answer(())
            self.counts.spoofed += 1
            return None
        try:
            return read_answer(message, end)
        except Malformed:
            if message[2] & 0x02:  # truncated somewhere: the client will ask over TCP
                return Answer(())
            self.counts.malformed += 1
            return None

    def cannot(self, server: bytes, error: str) -> None:
        """Nobody can speak as *server*."""
        self._warn("cannot answer as server", server=" ".join(map(str, spelled(server))), error=error)

    def _forget(self) -> None:
        """Who judges is looked up again at the next question of each."""
        self._judges.clear()
        if self.core is not None:
            self.core.clear()

    def _judge(self, subject: int, protocol: int, server: bytes) -> Judge:
        who = self._kernel.identity(packed_address(server))
        port = int.from_bytes(server[2:4], "big")
        return Judge(self._rules.names(subject, protocol, port, who), who)
