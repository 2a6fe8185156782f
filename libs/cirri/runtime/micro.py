"""The NATS services API: ``$SRV.PING/INFO/STATS`` and request endpoints with statistics.

nats-py's ``nats.micro`` is bound to one connection object; this answers over every reconnect and
speaks the same protocol (NATS ADR-32), so ``nats micro ls`` and friends see the services.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from cirri.errors import CirriError
from cirri.kv import Bus, Message, Subscription
from cirri.kv.bus import ERROR_CODE_HEADER, ERROR_HEADER
from cirri.kv.errors import BusError

VERSION = "0.1.0"
VERBS = ("PING", "INFO", "STATS")
Work = Callable[[bytes], Awaitable[bytes]]
Spawn = Callable[[Coroutine[Any, Any, None]], Any]


@dataclass
class Endpoint:
    """A request subject, and what has happened on it."""

    name: str
    subject: str
    queue: str
    requests: int = 0
    errors: int = 0
    last_error: str = ""
    busy_ns: int = 0

    def stats(self) -> dict[str, Any]:
        """As ADR-32 writes it; times in nanoseconds."""
        return {
            "name": self.name,
            "subject": self.subject,
            "queue_group": self.queue,
            "num_requests": self.requests,
            "num_errors": self.errors,
            "last_error": self.last_error,
            "processing_time": self.busy_ns,
            "average_processing_time": self.busy_ns // max(self.requests, 1),
        }


class Responder:
    """Answers for one instance of service *name*; *metadata* is asked at each answer."""

    def __init__(self, bus: Bus, name: str, summary: str, metadata: Callable[[], dict[str, str]]) -> None:
        self._bus, self._name, self._summary, self._metadata = bus, name, summary, metadata
        self.id = secrets.token_hex(8)
        self.endpoints: list[Endpoint] = []
        self._started = datetime.now(UTC).isoformat()

    async def start(self) -> None:
        """Listen on ``$SRV.VERB``, ``$SRV.VERB.NAME`` and ``$SRV.VERB.NAME.ID``."""
        for verb in VERBS:
            for tail in ("", f".{self._name}", f".{self._name}.{self.id}"):
                await self._bus.subscribe(f"$SRV.{verb}{tail}", self._answer)

    async def serve(self, name: str, subject: str, queue: str, work: Work, spawn: Spawn) -> Subscription:
        """Answer requests on *subject* by *work*, each in a task made by *spawn*."""
        endpoint = Endpoint(name, subject, queue)
        self.endpoints.append(endpoint)

        def take(message: Message) -> None:
            spawn(self._handle(endpoint, work, message))

        return await self._bus.subscribe(subject, take, queue=queue)

    async def _handle(self, endpoint: Endpoint, work: Work, message: Message) -> None:
        began = time.perf_counter_ns()
        headers: dict[str, str] | None = None
        answer = b""
        try:
            answer = await work(message.data)
        except CirriError as error:
            headers = {ERROR_HEADER: _one_line(error), ERROR_CODE_HEADER: "400"}
        except Exception as error:  # noqa: BLE001  a defect in one handler must not end the service
            headers = {ERROR_HEADER: _one_line(error), ERROR_CODE_HEADER: "500"}
        endpoint.requests += 1
        endpoint.busy_ns += time.perf_counter_ns() - began
        if headers is not None:
            endpoint.errors += 1
            endpoint.last_error = headers[ERROR_HEADER]
        if message.reply:
            try:
                await self._bus.link.publish(message.reply, answer, headers=headers)
            except BusError as error:
                endpoint.last_error = str(error)

    async def _answer(self, message: Message) -> None:
        verb = message.subject.split(".")[1]
        body: dict[str, Any] = {
            "type": f"io.nats.micro.v1.{verb.lower()}_response",
            "name": self._name,
            "id": self.id,
            "version": VERSION,
            "metadata": self._metadata(),
        }
        if verb == "INFO":
            body["description"] = self._summary
            body["endpoints"] = [
                {"name": e.name, "subject": e.subject, "queue_group": e.queue, "metadata": {}}
                for e in self.endpoints
            ]
        elif verb == "STATS":
            body["started"] = self._started
            body["endpoints"] = [e.stats() for e in self.endpoints]
        if message.reply:
            await self._bus.link.publish(message.reply, msgspec.json.encode(body))


def _one_line(error: Exception) -> str:
    text = str(error) or type(error).__name__
    # A header cannot hold line ends.
    return text.replace("\r", " ").replace("\n", "; ")
