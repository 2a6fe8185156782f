"""The real ``cirri-kubernetes`` as a process on a real nats-server."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from cirri.kv import Bus, BusTimeout, ServiceAway
from cirri.manifests.api import (
    APPLY,
    CONFIRM,
    DELETE,
    ROLLBACK,
    ApplyReply,
    ApplyRequest,
    ConfirmRequest,
    DeleteRequest,
)
from cirri.model import RESOURCES, Resource
from cirri.testing import nursed
from cirri.testing.natsserver import NatsServer

T = TypeVar("T")


class KubernetesService:
    """``cirri-kubernetes`` as a process, and everything it may change."""

    def __init__(self, server: NatsServer, home: Path) -> None:
        self.server, self.home = server, home
        self.process: nursed.Nursed | None = None

    def start(self) -> None:
        """Run it; it answers when :meth:`ask` does."""
        given = {
            "CIRRI_NATS_URL": self.server.url,
            "CIRRI_STATE_DIR": str(self.home / "state"),
            "CIRRI_RUN_DIR": str(self.home / "run"),
            "CIRRI_INSTANCE": "test",
        }
        self.process = nursed.start("cirri.kubernetes", env=given, log=self.home / "log")

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
            self.process = None

    def on_bus(self, work: Callable[[Bus], Awaitable[T]]) -> T:
        """The result of *work* on a connection of its own."""

        async def run() -> T:
            bus = await Bus.connect(self.server.url)
            try:
                return await work(bus)
            finally:
                await bus.drain()

        return asyncio.run(run())

    def ask(self, subject: str, payload: bytes) -> ApplyReply:
        """The answer to a request, waited for until the service is there."""

        async def work(bus: Bus) -> ApplyReply:
            deadline = time.monotonic() + 15
            while True:
                try:
                    return msgspec.msgpack.decode(await bus.request(subject, payload, 10), type=ApplyReply)
                except (ServiceAway, BusTimeout):  # a request may be lost with the store
                    assert time.monotonic() < deadline, "the service does not answer"
                    await asyncio.sleep(0.01)

        return self.on_bus(work)

    def apply(self, request: ApplyRequest) -> ApplyReply:
        """The answer to *request*."""
        return self.ask(APPLY, msgspec.msgpack.encode(request))

    def delete(self, request: DeleteRequest) -> ApplyReply:
        """The answer to *request*."""
        return self.ask(DELETE, msgspec.msgpack.encode(request))

    def confirm(self, request: ConfirmRequest) -> ApplyReply:
        """The answer to *request*."""
        return self.ask(CONFIRM, msgspec.msgpack.encode(request))

    def rollback(self, request: ConfirmRequest) -> ApplyReply:
        """The answer to *request*."""
        return self.ask(ROLLBACK, msgspec.msgpack.encode(request))

    def resources(self) -> dict[str, Resource]:
        """Every value of bucket ``resources`` by its key."""

        async def work(bus: Bus) -> dict[str, Resource]:
            return {entry.key: entry.value for entry in await bus.entries(RESOURCES)}

        return self.on_bus(work)

    def bucket(self) -> dict[str, int]:
        """Every key of bucket ``resources`` with its revision."""

        async def work(bus: Bus) -> dict[str, int]:
            async with bus.table(RESOURCES) as table:
                await asyncio.wait_for(table.ready.wait(), 10)
                await table.caught_up()
                return {key: table.revision_of(key) for key in table}

        return self.on_bus(work)

    def files(self) -> dict[str, bytes]:
        """Every stored file."""
        root = self.home / "state"
        return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
