"""The requests: decode, check, decide, store, publish, answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from ipaddress import ip_network
from typing import ParamSpec, Protocol, TypeVar

import msgspec

from cirri.engine.parse import findings
from cirri.errors import CirriError
from cirri.kubernetes.applying import plan_apply, plan_status, require_existing, system_namespaces
from cirri.kubernetes.deleting import plan_delete
from cirri.kubernetes.judge import Judge
from cirri.kubernetes.provisional import (
    Terms,
    chosen,
    confirmed,
    due,
    guarded,
    left_s,
    time_text,
    undone,
)
from cirri.kubernetes.state import SYSTEM_NAMESPACES, Change, Key, Pending, Refused, State, key_of
from cirri.kubernetes.store import Store
from cirri.loadbalancer.complaints import Prefixes
from cirri.manifests import (
    DEFAULT_NAMESPACE,
    KINDS,
    Document,
    ManifestError,
    Problem,
    check_all,
    unknown_kind,
)
from cirri.manifests.api import (
    ApplyObject,
    ApplyReply,
    ApplyRequest,
    ConfirmRequest,
    DeleteRequest,
    Result,
    Undo,
)
from cirri.manifests.surroundings import Surroundings
from cirri.manifests.warnings import warnings
from cirri.model import RESOURCES, Resource

R = TypeVar("R", ApplyRequest, DeleteRequest, ConfirmRequest)
T = TypeVar("T")
P = ParamSpec("P")

SMALL = 20
"""Objects that are checked in a few milliseconds."""


class Publishing(Protocol):
    """What is used of :class:`cirri.kv.Publisher`."""

    async def put(self, value: Resource) -> int:
        """Write *value* if it changed; returns its revision."""

    async def delete(self, key: str) -> int:
        """Remove *key*; returns the revision of the removal."""

    async def replace(self, values: Iterable[Resource]) -> int:
        """Make the bucket hold exactly *values*; returns the last revision."""


class Cluster:
    """The objects of this cluster: on disk, in memory, and in the bucket.

    One request at a time: what a request is decided on is what it changes.
    """

    def __init__(
        self, store: Store, bucket: Publishing, *, now: Callable[[], datetime], new_uid: Callable[[], str]
    ) -> None:
        self._store = store
        self._bucket = bucket
        self._now = now
        self._new_uid = new_uid
        self._turn = asyncio.Lock()
        self._objects, self._pending = store.load()
        self._judge = Judge(self._objects.values())
        self.behind = asyncio.Event()
        """Set when the bucket may lack something that is stored: ``publish`` mends it."""
        self.provisional = asyncio.Event()
        """Set when other objects may be due next: :meth:`due_in_s`."""
        self.unjudged = asyncio.Event()
        """Set when Services may need another condition: :meth:`judge`."""
        self.unjudged.set()
        missing = system_namespaces(self._objects, SYSTEM_NAMESPACES)
        first = plan_apply(self._objects, missing, now=time_text(now()), new_uid=new_uid)
        first += undone(self._objects, self._pending, due(self._pending, now()))
        if first:
            store.change(first)
            self._take(first)

    @property
    def state(self) -> State:
        """Every object."""
        return self._objects

    @property
    def pending(self) -> Pending:
        """The objects that wait for their confirmation."""
        return self._pending

    def due_in_s(self) -> float | None:
        """Seconds until :meth:`undo_due` has something to do; None if nothing is provisional."""
        return left_s(self._pending, self._now())

    async def publish(self) -> int:
        """Make the bucket equal to what is stored; returns its revision."""
        async with self._turn:
            self.behind.clear()
            try:
                return await self._bucket.replace(self._objects.values())
            except BaseException:
                self.behind.set()
                raise

    async def apply(self, payload: bytes) -> bytes:
        """Answer an :class:`ApplyRequest`."""
        async with self._turn:
            try:
                request = _decoded(payload, ApplyRequest, "an apply request")
                if request.status_only:
                    changes = plan_status(self._objects, [named(i, o) for i, o in enumerate(request.objects)])
                else:
                    changes = await _beside(len(request.objects), self._plan, request)
            except (Refused, ManifestError) as refused:
                return msgspec.msgpack.encode(ApplyReply(error=str(refused)))
            return await self._done(changes, status_only=request.status_only)

    async def delete(self, payload: bytes) -> bytes:
        """Answer a :class:`DeleteRequest`."""
        async with self._turn:
            try:
                request = _decoded(payload, DeleteRequest, "a delete request")
                changes = plan_delete(self._objects, request.objects, ignore_missing=request.ignore_missing)
            except Refused as refused:
                return msgspec.msgpack.encode(ApplyReply(error=str(refused)))
            return await self._done(changes)

    async def confirm(self, payload: bytes) -> bytes:
        """Answer a :class:`ConfirmRequest`: keep provisional objects for good."""
        return await self._settle(payload, "a confirmation", lambda keys: confirmed(self._objects, keys))

    async def rollback(self, payload: bytes) -> bytes:
        """Answer a :class:`ConfirmRequest`: undo provisional objects now."""
        return await self._settle(
            payload, "a rollback", lambda keys: undone(self._objects, self._pending, keys)
        )

    async def _settle(self, payload: bytes, what: str, plan: Callable[[list[Key]], list[Change]]) -> bytes:
        async with self._turn:
            try:
                request = _decoded(payload, ConfirmRequest, what)
                changes = plan(chosen(self._pending, request.objects))
            except Refused as refused:
                return msgspec.msgpack.encode(ApplyReply(error=str(refused)))
            return await self._done(changes)

    async def undo_due(self) -> list[Result]:
        """Undo what nobody has confirmed in time; what has become of it."""
        async with self._turn:
            changes = undone(self._objects, self._pending, due(self._pending, self._now()))
            await self._done(changes)
            return [_result(change, 0) for change in changes]

    async def judge(self) -> list[Change]:
        """Say of Services that cannot be served as they are written what is wrong; what has changed."""
        async with self._turn:
            self.unjudged.clear()
            size = len(self._judge.dirty)
            changes = await _beside(size, self._judge.step, self._objects, self._now())
            if self._judge.dirty:
                self.unjudged.set()
            statuses = [each for each in changes if each.resource.kind == "Service"]
            events = [each for each in changes if each.resource.kind == "Event"]
            if statuses:
                await self._done(statuses, status_only=True)
            if events:
                await self._done(events)
            return changes

    def note_ranges(self, cidrs: Iterable[str]) -> None:
        """The ranges of pods' addresses that nodes have."""
        self._judge.note_ranges(Prefixes(map(ip_network, cidrs)))
        self.unjudged.set()

    def _plan(self, request: ApplyRequest) -> list[Change]:
        objects = check_all(map(_document, request.objects), _not_enforced)
        if request.update_only:
            require_existing(self._objects, objects)
        now = self._now()
        changes = plan_apply(self._objects, objects, now=time_text(now), new_uid=self._new_uid)
        terms = Terms(now, request.confirm_within_s, request.for_good)
        return guarded(changes, self._objects, self._pending, terms)

    async def _done(self, changes: list[Change], *, status_only: bool = False) -> bytes:
        """Keep *changes*, publish them, and say at which revisions they hold.

        The disk is slower than the bus, so both are done at once; what cannot be kept is taken back.
        """
        published, kept = await asyncio.gather(
            asyncio.gather(*map(self._published, changes)),
            self._keep(changes, status_only=status_only),
            return_exceptions=True,
        )
        if isinstance(kept, BaseException):
            self.behind.set()
            raise kept
        try:
            if isinstance(published, BaseException):
                raise published
            results = list(map(_result, changes, published))
        except CirriError as error:
            self.behind.set()
            says = f"stored, but not published yet: {error}. It will be as soon as the bus allows"
            return msgspec.msgpack.encode(ApplyReply(error=says))
        new = [] if status_only else [c.resource for c in changes if c.action in ("created", "configured")]
        found = await _beside(len(new), self._warnings, new)
        revision = max((result.revision for result in results), default=0)
        return msgspec.msgpack.encode(ApplyReply(results=tuple(results), revision=revision, warnings=found))

    def _warnings(self, new: Sequence[Resource]) -> tuple[str, ...]:
        around = Surroundings(self._objects.values())
        return tuple(says for resource in new for says in warnings(resource, around))

    async def _keep(self, changes: Sequence[Change], *, status_only: bool) -> None:
        changing = [c for c in changes if c.action != "unchanged"]
        if status_only:
            for change in changing:
                self._store.put_status(change.resource)
                self._objects[key_of(change.resource)] = change.resource
                self._note(change)
        elif changing:
            await asyncio.to_thread(self._store.change, changing)
            self._take(changing)

    def _take(self, changes: Iterable[Change]) -> None:
        """Take over what is stored now."""
        for change in changes:
            key = key_of(change.resource)
            self._note(change)
            if change.action == "deleted":
                del self._objects[key]
            else:
                self._objects[key] = change.resource
            self._pending.pop(key, None)
            if change.provisional is not None:
                self._pending[key] = change.provisional
        self.provisional.set()

    def _note(self, change: Change) -> None:
        self._judge.note(change)
        if self._judge.dirty:
            self.unjudged.set()

    async def _published(self, change: Change) -> int:
        if change.action == "deleted":
            return await self._bucket.delete(RESOURCES.key(change.resource))
        revision = await self._bucket.put(change.resource)
        if change.before is not None:
            revision = await self._bucket.delete(RESOURCES.key(change.before))
        return revision


async def _beside(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of *work*; a large piece is done in a thread, so that leadership is kept meanwhile."""
    if size <= SMALL:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)


def _decoded(payload: bytes, kind: type[R], what: str) -> R:
    try:
        request = msgspec.msgpack.decode(payload, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refused([Problem(message=f"not {what}: {error}")]) from None
    if not request.objects and not isinstance(request, ConfirmRequest):
        raise Refused([Problem(message=f"{what} names no objects")])
    return request


def _not_enforced(policy: Resource) -> list[tuple[str, str]]:
    """What the engine cannot make true: a policy is enforced as written, or refused."""
    return [*findings(policy)]


def _document(item: ApplyObject) -> Document:
    return Document(item.manifest, file=item.source)


def named(index: int, item: ApplyObject) -> Resource:
    """The object that a status is for; nothing but its name and status is looked at."""
    manifest = item.manifest
    kind, metadata, status = manifest.get("kind"), manifest.get("metadata"), manifest.get("status")
    where = f"objects[{index}]"
    if not isinstance(kind, str) or kind not in KINDS:
        raise Refused([Problem(path=f"{where}.kind", message=unknown_kind(str(kind)))])
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise Refused([Problem(path=f"{where}.metadata.name", message="required, but missing")])
    if not isinstance(status, dict):
        raise Refused([Problem(path=f"{where}.status", message="must be a mapping")])
    namespace = metadata.get("namespace") or DEFAULT_NAMESPACE if KINDS[kind].namespaced else ""
    if not isinstance(namespace, str):
        raise Refused([Problem(path=f"{where}.metadata.namespace", message="must be a string")])
    return Resource(
        kind=kind, namespace=namespace, name=metadata["name"], manifest=manifest, source=item.source
    )


def _result(change: Change, revision: int) -> Result:
    resource, waiting = change.resource, change.provisional
    undo: Undo = "" if waiting is None else "delete" if waiting.before is None else "restore"
    return Result(
        kind=resource.kind,
        namespace=resource.namespace,
        name=resource.name,
        action=change.action,
        revision=revision,
        confirm_by="" if waiting is None else waiting.by,
        undo=undo,
    )
