"""Say what is realized: endpoint files and records, status and acknowledgement, names for the CLI."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec.structs import replace

from cirri.datapath.host import ALLOW_BUS, ALLOW_OVERLAY
from cirri.datapath.regenerate import Local
from cirri.datapath.store import Store
from cirri.datapath.views import Views
from cirri.kv import BusError, Publisher
from cirri.layout import EndpointFlag
from cirri.model import REPORTS, Ack, Endpoint, NodeStatus
from cirri.model.bucket import token
from cirri.runtime.logs import Log

LAZY_S = 0.5
"""Changes of nothing but reports are published at most this often: what is undone meanwhile is not
published at all."""
SOON_S = 0.02
"""How long the first of them waits: the kernel and the acknowledgement come first."""
FILES_S = 0.5
FIRST_S = 3.0
"""How long the first publication waits for the policies."""


class Reporter:
    """Writes buckets ``endpoints``, ``nodes`` and ``acks`` (this node's shards) and the endpoint files."""

    def __init__(
        self,
        node: str,
        *,
        endpoints: Publisher[Endpoint],
        nodes: Publisher[NodeStatus],
        acks: Publisher[Ack],
        views: Views,
        store: Store,
        log: Log,
    ) -> None:
        self.node, self.views, self.store, self.log = node, views, store, log
        self._endpoints, self._nodes, self._acks = endpoints, nodes, acks
        self._saved: dict[int, object] = {}
        self._said: dict[int, Endpoint] = {}
        self._due: dict[int, Local | None] = {}
        self._lazy: dict[int, Local] = {}
        self._status: NodeStatus | None = None
        self._status_due = asyncio.Event()
        self._ack = Ack(node=node)
        self._ack_due = asyncio.Event()
        self._ack_due.set()  # what the service before said may hold no more
        self._wake, self._lazily, self._files = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def changed(self, local: Local) -> None:
        """An endpoint is not what it was: store it, publish it."""
        record = local.record
        if record.complete and self._saved.get(record.id) != record:
            self._saved[record.id] = record
            self.store.save(record)
        if not record.labels:
            return  # nobody can do anything with it yet
        new, old = self.endpoint(local), self._said.get(record.id)
        if new == old:
            return
        if old is not None and new == replace(old, **{name: getattr(new, name) for name in REPORTS}):
            self._lazy[record.id] = local
            self._lazily.set()
        else:
            self._due[record.id] = local
            self._wake.set()
        self._files.set()

    def removed(self, number: int) -> None:
        """An endpoint is gone."""
        self._saved.pop(number, None)
        self._lazy.pop(number, None)
        self._due[number] = None
        self._wake.set()

    def status(self, status: NodeStatus) -> None:
        """What the node has realized, for everyone who waits for it."""
        if status != self._status:
            self._status = status
            self._status_due.set()

    def acknowledge(self, policy_revision: int, resources_revision: int) -> None:
        """Say up to which revisions of bucket ``resources`` everything is in force."""
        ack = Ack(node=self.node, policy_revision=policy_revision, resources_revision=resources_revision)
        if ack != self._ack:
            self._ack = ack
            self._ack_due.set()
            self._files.set()  # there may be rules with other names

    def endpoint(self, local: Local) -> Endpoint:
        """The record of *local* as others see it."""
        record = local.record
        return Endpoint(
            node=self.node,
            id=record.id,
            namespace=record.namespace,
            pod=record.pod,
            container_id=record.container,
            interface=record.interface,
            ipv4=record.ipv4,
            ipv6=record.ipv6,
            mac=record.mac,
            labels=record.labels,
            identity=record.identity,
            state=local.state if record.complete or local.state != "ready" else "regenerating",
            ingress_enforced=EndpointFlag.ENFORCE_INGRESS in local.enforced,
            egress_enforced=EndpointFlag.ENFORCE_EGRESS in local.enforced,
            audit=local.audited,
            error=local.error,
        )

    async def run(self, tasks: asyncio.TaskGroup, locals_: Callable[[], list[Local]], run_dir: Path) -> None:
        """Publish from now on; first the whole state, so that nothing old is left."""
        tasks.create_task(self._publish(tasks, locals_))
        tasks.create_task(self._publish_status(tasks))
        tasks.create_task(self._publish_acks(tasks))
        tasks.create_task(self._publish_lazily())
        tasks.create_task(self._write_names(locals_, run_dir))

    async def _publish(self, tasks: asyncio.TaskGroup, locals_: Callable[[], list[Local]]) -> None:
        # With the policies at hand a restart publishes what was published before, without a flicker.
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_S):
                await self.views.policies.ready.wait()
        self._said = {local.record.id: self.endpoint(local) for local in locals_() if local.record.labels}
        tasks.create_task(self._quiet(self._endpoints.replace(list(self._said.values()))))
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._due = self._due, {}
            for number, local in due.items():
                if local is None:
                    self._said.pop(number, None)
                    tasks.create_task(self._quiet(self._endpoints.delete(f"{token(self.node)}.{number}")))
                elif (new := self.endpoint(local)) != self._said.get(number):
                    self._said[number] = new
                    tasks.create_task(self._quiet(self._endpoints.put(new)))

    async def _publish_status(self, tasks: asyncio.TaskGroup) -> None:
        declared = False
        while True:
            await self._status_due.wait()
            self._status_due.clear()
            if (status := self._status) is not None:
                write = self._nodes.put(status) if declared else self._nodes.replace([status])
                declared = True
                tasks.create_task(self._quiet(write))

    async def _publish_acks(self, tasks: asyncio.TaskGroup) -> None:
        declared = False
        while True:
            await self._ack_due.wait()
            self._ack_due.clear()
            if declared:
                await self._acks.post(self._ack)
            else:
                declared = True
                tasks.create_task(self._quiet(self._acks.replace([self._ack])))

    async def _publish_lazily(self) -> None:
        clock = asyncio.get_running_loop()
        last = -LAZY_S
        while True:
            await self._lazily.wait()
            await asyncio.sleep(max(SOON_S, last + LAZY_S - clock.time()))
            last = clock.time()
            self._lazily.clear()
            self._due = {**self._lazy, **self._due}
            self._lazy = {}
            self._wake.set()

    async def _quiet(self, write: object) -> None:
        """A write that the bus does not take now is kept by the publisher and made later."""
        try:
            await write  # type: ignore[misc]
        except BusError as error:
            self.log.warning("not published yet", error=str(error))

    async def _write_names(self, locals_: Callable[[], list[Local]], run_dir: Path) -> None:
        """``rules.json`` and ``identities.json``: what cookies and numbers in the maps stand for."""
        written: dict[str, bytes] = {}
        known = -1
        while True:
            await self._files.wait()
            await asyncio.sleep(FILES_S)
            self._files.clear()
            rules: dict[str, object] = {str(each.cookie): each for each in (ALLOW_BUS, ALLOW_OVERLAY)}
            for number in {local.record.identity for local in locals_()}:
                entry = self.views.policies.get(str(number))
                for origin in entry.subject.origins if entry and entry.subject else ():
                    rules[str(origin.cookie)] = origin
            files = {"rules.json": msgspec.json.encode(rules)}
            if known != (known := self.views.identities.revision):
                names = {key: one.labels for key, one in self.views.identities.items()}
                files["identities.json"] = msgspec.json.encode(names)
            for name, data in files.items():
                if written.get(name) != data:
                    await asyncio.to_thread(_replace, run_dir / name, data)
                    written[name] = data


def _replace(path: Path, data: bytes) -> None:
    """In a thread: where the folder is on a disk, renaming over a file waits for it."""
    draft = path.with_suffix(".draft")
    draft.write_bytes(data)
    os.replace(draft, path)
