"""What is decided about each question and each answer, whatever brings it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from cirri.dnsproxy.batches import Inbox
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
    read_answer,
    refusal,
)
from cirri.dnsproxy.opening import Openings
from cirri.dnsproxy.rules import Names, Rules
from cirri.dnsproxy.sockets import packed_address
from cirri.dnsproxy.watch import Watch
from cirri.layout.address import address16
from cirri.model.names import name_settings
from cirri.proxies import DnsRule, NodeProxies

_CODES = {"refused": REFUSED, "nameError": NXDOMAIN}
FORGET_S = 1.0
"""How long the identity of a server is remembered: policy may give it another one."""


class Asked(NamedTuple):
    """A question that waits for its answer."""

    pod: Pod
    client: bytes
    server: bytes
    """Where it came from and goes to, as the kernel writes addresses."""
    identity: int
    """Of the server."""
    question: bytes
    """Name, type and class, in lower case."""
    rule: int
    began: float
    """Monotonic."""
    message: bytes
    slot: int = 0
    ring: Inbox | None = None
    """Where it is noted as under way."""


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
        self._names: dict[tuple[int, int, bytes], tuple[Names, int]] = {}
        self._forget_at = 0.0

    def adopt(self, told: NodeProxies) -> None:
        """Follow what the datapath service says."""
        if told.dns != self._dns:
            self._rules, self._dns = Rules(told.dns), told.dns
        self._names.clear()
        limits, _ = name_settings(told.settings)  # who applied them was told what is wrong
        self.openings.facts.limits = limits
        self._refusal = _CODES[limits.refusal]
        self.openings.adopt(told)
        facts = self.openings.facts
        self.by_address.clear()
        self.by_address |= {
            address16(address): endpoint.id for endpoint in told.endpoints for address in endpoint.addresses
        }
        self.pods = {
            address[12:] if address.startswith(bytes(10) + b"\xff\xff") else address: facts.pods[number]
            for address, number in self.by_address.items()
        }

    def decide(self, pod: Pod, protocol: int, server: bytes, message: bytes) -> tuple[int, int, int]:
        """(end of the question, cookie of the rule that lets it pass or ``REFUSED``, the server's identity).

        Raises: Malformed.
        """
        end = check_query(message)
        names = self._names.get((pod.identity, protocol, server))
        if names is None:
            names = self._look_up(pod.identity, protocol, server)
        return end, names[0].rule(message[HEADER : end - 4].lower()), names[1]

    def look(self) -> None:
        """Now and then: let servers be looked up again."""
        if time.monotonic() > self._forget_at:
            self._forget_at = time.monotonic() + FORGET_S
            self._names.clear()

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
        """What *message* says about *question* (in lower case); None: it is no answer to it, or broken."""
        end = HEADER + len(question)
        if len(message) < HEADER or not message[2] & 0x80:
            self.counts.spoofed += 1
            return None
        if message[4:6] != b"\0\1" or message[HEADER:end].lower() != question:
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

    def cannot(self, server: tuple[str, int], error: OSError) -> None:
        """Nobody can speak as *server*."""
        self._warn("cannot answer as server", server=f"{server[0]} {server[1]}", error=str(error))

    def _look_up(self, subject: int, protocol: int, server: bytes) -> tuple[Names, int]:
        who = self._kernel.identity(packed_address(server))
        port = int.from_bytes(server[2:4], "big")
        found = self._names[subject, protocol, server] = self._rules.names(subject, protocol, port, who), who
        return found
