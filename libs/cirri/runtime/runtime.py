"""What a service's ``serve`` is given: the declared part of the bus, and ways to say how it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from cirri.kv import Bus, NotOwner, Publisher, Subscription, Table
from cirri.kv.link import Handler
from cirri.kv.wire import shard_of
from cirri.model.bucket import Bucket, token
from cirri.runtime.contract import Service
from cirri.runtime.errors import ContractViolation
from cirri.runtime.health import Condition
from cirri.runtime.logs import Log
from cirri.runtime.micro import Responder, Work
from cirri.runtime.settings import Settings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

T = TypeVar("T")

CLOSE_S = 0.5
"""How long the end of a service waits for what it wants to be written."""


def request_subject(service: str, name: str, node: str = "") -> str:
    """``cirri.SERVICE[.NODE].NAME``: where a request for endpoint *name* goes."""
    return ".".join(("cirri", service, *([token(node)] if node else []), name))


def called_subject(subject: str, node: str) -> str:
    """*subject* of a contract's ``calls``, as *node* asks it."""
    return subject.replace("{node}", token(node))


def told_subject(name: str, node: str) -> str:
    """``cirri.NAME.NODE``: where *node* tells *name*; node ``*``: every node."""
    return f"cirri.{name}.{node if node == '*' else token(node)}"


class Runtime:
    """One term of a service: from leadership (if it has to lead) to its end."""

    def __init__(
        self,
        service: Service,
        settings: Settings,
        bus: Bus,
        log: Log,
        *,
        tasks: asyncio.TaskGroup,
        responder: Responder,
        gate: Callable[[], bool] | None = None,
    ) -> None:
        self.service, self.settings, self.bus, self.log = service, settings, bus, log
        self.tasks = tasks
        """Ends with the service; an exception in one of its tasks ends the service."""
        self._responder, self._gate = responder, gate
        self._conditions: dict[str, Condition] = {}
        self._tables: dict[tuple[str, str], Table[Any]] = {}
        self._needed: set[tuple[str, str]] = set()
        self._publishers: dict[str, Publisher[Any]] = {}
        self._subscriptions: list[Subscription] = []
        self._metrics: CollectorRegistry | None = None
        bus.guard = self._guard

    def table(self, bucket: Bucket[T], pattern: str = ">", *, needed: bool = True) -> Table[T]:
        """*bucket* (what matches *pattern*), followed from now on.

        *needed*: the service is not ready before it has been read.
        Raises: ContractViolation if the service does not declare to read it.
        """
        if bucket not in self.service.reads:
            raise ContractViolation(self.service.name, "read bucket", bucket.name)
        if (bucket.name, pattern) not in self._tables:
            table = self.bus.table(bucket, pattern)
            table.begin()
            self._tables[bucket.name, pattern] = table
            if needed:
                self._needed.add((bucket.name, pattern))
        return self._tables[bucket.name, pattern]

    def publisher(self, bucket: Bucket[T]) -> Publisher[T]:
        """The writer of *bucket* (this node's or service's shard of it), connecting from now on.

        Raises: ContractViolation if the service does not declare to write it.
        """
        if bucket not in self.service.writes:
            raise ContractViolation(self.service.name, "write bucket", bucket.name)
        if bucket.name not in self._publishers:
            publisher = self.bus.publisher(bucket, self._shard(bucket), gate=self._gate)
            publisher.begin()
            self._publishers[bucket.name] = publisher
        return self._publishers[bucket.name]

    async def handle(self, name: str, work: Work) -> None:
        """Answer requests ``cirri.SERVICE[.NODE].NAME`` by *work*; also listed under ``$SRV``.

        A CirriError becomes an error reply with its sentence.  Raises: ContractViolation.
        """
        if name not in self.service.serves:
            raise ContractViolation(self.service.name, "serve", name)
        node = self.settings.node if self.service.scope == "node" else ""
        subject = request_subject(self.service.name, name, node)
        self._subscriptions.append(
            await self._responder.serve(name, subject, self.service.name, work, self.tasks.create_task)
        )

    async def request(self, subject: str, payload: bytes = b"", timeout_s: float = 5.0) -> bytes:
        """Ask another service, by one of ``calls``.  Raises: ContractViolation, and as Bus.request()."""
        if subject not in self.service.calls:
            raise ContractViolation(self.service.name, "call", subject)
        return await self.bus.request(called_subject(subject, self.settings.node), payload, timeout_s)

    async def tell(self, name: str, payload: bytes) -> None:
        """Say *payload* on ``cirri.NAME.NODE`` to whoever listens; nobody may.

        Raises: ContractViolation, BusUnavailable.
        """
        if name not in self.service.tells:
            raise ContractViolation(self.service.name, "tell", name)
        await self.bus.publish(told_subject(name, self.settings.node), payload)

    async def hear(self, name: str, handler: Handler) -> None:
        """Call *handler* for each message of what is told as *name*, until the service ends.

        Raises: ContractViolation.
        """
        if name not in self.service.hears:
            raise ContractViolation(self.service.name, "hear", name)
        node = self.settings.node if self.service.scope == "node" else "*"
        self._subscriptions.append(await self.bus.subscribe(told_subject(name, node), handler))

    def ready(self, condition: str, ok: bool, why: str = "") -> None:
        """Say whether *condition* holds, for /readyz; the service is ready when all hold."""
        before = self._conditions.get(condition)
        self._conditions[condition] = Condition(condition, ok, "" if ok else why)
        if before is None or before.ok != ok:
            self.log.info("condition", condition=condition, ok=ok, why=why)

    def conditions(self) -> list[Condition]:
        """Everything that must hold for this service to be ready."""
        found = list(self._conditions.values())
        for (name, pattern), table in self._tables.items():
            if (name, pattern) not in self._needed:
                continue
            found.append(
                Condition(
                    f"read {name}" + ("" if pattern == ">" else f" {pattern}"),
                    table.ready.is_set(),
                    "" if table.ready.is_set() else "no complete state has been read yet",
                )
            )
        for name, publisher in self._publishers.items():
            started = publisher.started.is_set()
            found.append(Condition(f"write {name}", started, "" if started else "the bucket is not open yet"))
        return found

    @property
    def metrics(self) -> CollectorRegistry:
        """The service's Prometheus registry; made (and imported) when it is first asked for."""
        if self._metrics is None:
            from prometheus_client import CollectorRegistry

            from cirri.runtime.metrics import BusMetrics

            self._metrics = CollectorRegistry()
            self._metrics.register(BusMetrics(self.service.name, self.bus))
        return self._metrics

    async def close(self) -> None:
        """Take no more requests, let what is wanted reach the store, stop following."""
        for subscription in self._subscriptions:
            await subscription.close()
        self._responder.endpoints.clear()
        for table in self._tables.values():
            await table.close()
        if self.bus.connected and (self._gate is None or self._gate()):
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await asyncio.gather(*(p.settled() for p in self._publishers.values()))
        for publisher in self._publishers.values():
            await publisher.close()
        self.bus.forget(self._tables.values(), self._publishers.values())
        self.bus.guard = None

    def _shard(self, bucket: Bucket[Any]) -> str:
        if bucket.shard == "node":
            return self.settings.shard
        return token(self.service.name) if bucket.shard == "service" else ""

    def _guard(self, bucket: Bucket[Any], key: str) -> None:
        if bucket not in self.service.writes and bucket.writer != "*":
            raise ContractViolation(self.service.name, "write bucket", bucket.name)
        if bucket.shard and shard_of(bucket, key) != self._shard(bucket):
            raise NotOwner(bucket.name, key, self._shard(bucket))
