"""``cirri lab api``: an endpoint at which stock ``kubectl`` works against the lab.

Reads come from bucket ``resources`` (with the ``Valid`` conditions of policies), writes go through the
requests of the ``kubernetes`` service, as ``cirri apply`` does: so the same is refused, in the same words.
It listens on the loopback of this machine while the lab's bus is in a namespace of its own; who knows the
secret part of the address may do everything, which is why the kubeconfig is for its owner alone.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from cirri.errors import CirriError
from cirri.kubeapi.answers import ApiError
from cirri.kubeapi.columns import columns
from cirri.kubeapi.objects import Name, Object, Objects
from cirri.kubeapi.served import Served, every
from cirri.kubeapi.server import Server
from cirri.kubeapi.tables import Tables
from cirri.kv import Bus, Table
from cirri.lab.enter import NETNS, set_namespace
from cirri.lab.known import where_is
from cirri.manifests.api import (
    APPLY,
    DELETE,
    ApplyObject,
    ApplyReply,
    ApplyRequest,
    DeleteRequest,
    ObjectRef,
)
from cirri.model import CONDITIONS, RESOURCES, PolicyCondition, Resource

REQUEST_S = 30.0
SOURCE = "kubectl"
"""Where an object came from, for explanations."""
DROPPED = ("managedFields", "resourceVersion")


class NoLab(CirriError):
    """The lab that is asked for does not run."""

    def __init__(self, name: str) -> None:
        super().__init__(f"lab {name!r} is not up")
        self.hint = f"Start it with: cirri lab up --name {name}"


class LabObjects:
    """A :class:`cirri.kubeapi.pieces.Backend` over the lab's bus."""

    def __init__(self, bus: Bus, resources: Table[Resource], conditions: Table[PolicyCondition]) -> None:
        self.objects = Objects()
        # Versions go on over a restart of this process, whose watchers come back with theirs.
        self.objects.revision = time.time_ns() // 1_000_000
        self._bus, self._resources, self._conditions = bus, resources, conditions
        self._kinds = {kind.kind: kind for kind in every()}
        self._at = 0
        """Revision of the bucket that is in *objects*."""
        self._names: dict[str, tuple[Served, Name]] = {}
        self._moved = asyncio.Event()

    async def follow(self) -> None:
        """Keep the objects like the bucket, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(self._resources))
            tasks.create_task(self._follow(self._conditions))

    async def _follow(self, table: Table[Any]) -> None:
        async for keys in table.changes():
            self._at = max(self._at, self._resources.revision)
            for key in sorted(keys):
                self._take(key)
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()

    def _take(self, key: str) -> None:
        resource = self._resources.get(key)
        if resource is None:
            kind, name = self._names.pop(key, (None, ("", "")))
            # A pod that was scheduled is there under another key already.
            if kind is not None and (kind, name) not in self._names.values():
                self.objects.remove(kind.resource, name)
            return
        if (kind := self._kinds.get(resource.kind)) is None:
            return
        name = (resource.namespace, resource.name)
        self._names[key] = kind, name
        manifest = self._with_condition(key, resource)
        before = self.objects.get(kind.resource, name)
        if before is None or _bare(before) != manifest:
            self.objects.put(kind.resource, name, manifest)

    def _with_condition(self, key: str, resource: Resource) -> Object:
        said = self._conditions.get(key)
        if said is None:
            return resource.manifest
        current = said.revision >= self._resources.revision_of(key)
        word = "True" if said.valid else "False"
        condition = {
            "type": "Valid",
            "status": word if current else "Unknown",
            "message": said.message,
            "lastTransitionTime": said.since,
        }
        status = {**(resource.manifest.get("status") or {}), "conditions": [condition]}
        return {**resource.manifest, "status": status}

    async def create(self, kind: Served, manifest: Object) -> Object:
        """Store a new object.  Raises :class:`ApiError`."""
        return await self._apply(kind, manifest)

    async def replace(self, kind: Served, manifest: Object, *, status: bool) -> Object:
        """Store another version.  Raises :class:`ApiError`."""
        return await self._apply(kind, manifest, status=status)

    async def _apply(self, kind: Served, manifest: Object, *, status: bool = False) -> Object:
        metadata = {k: v for k, v in manifest["metadata"].items() if k not in DROPPED}
        if not status and kind.kind != "Node":
            manifest = {part: value for part, value in manifest.items() if part != "status"}
        sent = ApplyObject(manifest={**manifest, "metadata": metadata}, source=SOURCE)
        about = {"name": metadata["name"], "group": kind.group, "kind": kind.kind}
        await self._ask(APPLY, ApplyRequest(objects=(sent,), status_only=status), about)
        found = self.objects.get(kind.resource, (metadata.get("namespace", ""), metadata["name"]))
        if found is None:
            raise ApiError(500, "it was stored, and is gone again")
        return found

    async def delete(self, kind: Served, name: Name) -> None:
        """Remove an object, as others see it.  Raises :class:`ApiError`."""
        ref = ObjectRef(kind=kind.kind, namespace=name[0], name=name[1])
        about = {"name": name[1], "group": kind.group, "kind": kind.kind}
        await self._ask(DELETE, DeleteRequest(objects=(ref,), ignore_missing=True), about)

    async def _ask(self, subject: str, request: ApplyRequest | DeleteRequest, about: dict[str, Any]) -> None:
        """Return when what was asked for is in *objects*.  Raises :class:`ApiError`."""
        try:
            answer = await self._bus.request(subject, msgspec.msgpack.encode(request), REQUEST_S)
        except CirriError as error:
            raise ApiError(503, str(error)) from None
        reply = msgspec.msgpack.decode(answer, type=ApplyReply)
        if reply.error:
            raise _invalid(reply.error, about)
        try:
            async with asyncio.timeout(REQUEST_S):
                while self._at < reply.revision:
                    await self._moved.wait()
        except TimeoutError:
            raise ApiError(503, "it was stored, but the bucket does not say so yet") from None


def _invalid(error: str, about: dict[str, Any]) -> ApiError:
    """*error* as ``kubectl`` shows it: a cause for each line, ``kubectl: spec.field: why``."""
    causes = []
    for line in error.removeprefix("invalid manifest").splitlines():
        said = line.strip().removeprefix(f"{SOURCE}: ")
        field, _, why = said.partition(": ")
        named = " " not in field and bool(why)
        cause = {"field": field if named else "", "message": why if named else said}
        causes.append({"reason": "FieldValueInvalid", **cause})
    return ApiError(422, error, details={**about, "causes": causes})


def _bare(manifest: Object) -> Object:
    metadata = {k: v for k, v in manifest["metadata"].items() if k != "resourceVersion"}
    return {**manifest, "metadata": metadata}


def kubeconfig(lab: str, url: str) -> bytes:
    """What ``kubectl`` needs to get to *url*."""
    return msgspec.json.format(
        msgspec.json.encode(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": lab,
                "clusters": [{"name": lab, "cluster": {"server": url}}],
                "users": [{"name": lab, "user": {}}],
                "contexts": [{"name": lab, "context": {"cluster": lab, "user": lab}}],
            }
        )
    )


def run(name: str, port: int, say: Callable[[str], None]) -> None:
    """Serve lab *name* on 127.0.0.1 until SIGTERM or SIGINT.  Raises: NoLab, CirriError."""
    where = where_is(name)
    try:
        context = msgspec.json.decode(where.context.read_bytes())
    except FileNotFoundError:
        raise NoLab(name) from None
    with socket.create_server(("127.0.0.1", port)) as listener:
        # The socket stays in this machine's namespace; the way to the bus is in the lab's.
        if context.get("netns"):
            set_namespace(_namespace(str(context["netns"])))
        asyncio.run(_serve(name, context, where.run / "kubeconfig", listener, say))


def _namespace(word: str) -> Path:
    return Path(word) if "/" in word else NETNS / word


async def _serve(
    name: str, context: dict[str, Any], config: Path, listener: socket.socket, say: Callable[[str], None]
) -> None:
    bus = await Bus.connect(
        context["nats_url"],
        user=context.get("user", ""),
        password=context.get("password", ""),
        name="lab-api",
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with bus.table(RESOURCES) as resources, bus.table(CONDITIONS) as conditions:
            backend = LabObjects(bus, resources, conditions)
            server = Server(every(), backend, Tables(columns))
            follow = asyncio.ensure_future(backend.follow())
            await resources.ready.wait()
            await conditions.ready.wait()
            secret = secrets.token_urlsafe(18)
            runner = web.AppRunner(
                server.application(f"/{secret}"),
                access_log=None,
                handler_cancellation=True,
                shutdown_timeout=0.5,
            )
            await runner.setup()
            await web.SockSite(runner, listener).start()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/{secret}"
            config.touch(mode=0o600)
            config.write_bytes(kubeconfig(name, url))
            say(f"export KUBECONFIG={config}")
            stopped = asyncio.ensure_future(stop.wait())
            await asyncio.wait((stopped, follow), return_when=asyncio.FIRST_COMPLETED)
            server.stopping = True
            backend.objects.wake()
            for task in (stopped, follow):
                task.cancel()
            await runner.cleanup()
            config.unlink(missing_ok=True)
            if follow.done() and not follow.cancelled():
                follow.result()
    finally:
        await bus.drain()
