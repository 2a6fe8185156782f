"""Manifests on disk: the edge to the file system.

``manifests/KIND/NAMESPACE/NAME.json`` (``_`` for cluster-wide kinds) is written whole, synced and
renamed into place; a change of several objects goes through a journal, so that a crash leaves all
of it or nothing.  Statuses are kept apart and are not synced: their writers repeat them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct, structs

from cirri.errors import CirriError
from cirri.kubernetes.state import Change, Key, Provisional, key_of
from cirri.model import Resource

_CLUSTER_WIDE = "_"
_JOURNAL = "journal"
_DISK = Lock()
"""A change that a thread has begun is finished before anything is loaded again."""


class StoredManifestUnreadable(CirriError):
    """A stored manifest cannot be read; going on without it could widen a policy."""

    hint = "Restore the file, or remove it if the object is not wanted"

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"stored manifest {path} cannot be read: {why}")


class Stored(Resource, frozen=True, kw_only=True):
    """An object with what becomes of it if nobody confirms it: one file, so that both change at once."""

    provisional: Provisional | None = None


class Loaded(NamedTuple):
    """What the store holds."""

    objects: dict[Key, Resource]
    pending: dict[Key, Provisional]


class _Batch(Struct):
    """A change of several objects."""

    put: list[Stored]
    drop: list[Key]


class Store:
    """The objects below *root*; only one process may use it."""

    def __init__(self, root: Path) -> None:
        self._manifests = root / "manifests"
        self._statuses = root / "statuses"
        self._manifests.mkdir(parents=True, exist_ok=True)

    def load(self) -> Loaded:
        """Every stored object.  Raises :class:`StoredManifestUnreadable`."""
        with _DISK:
            return self._load()

    def _load(self) -> Loaded:
        self._finish_batch()
        found = Loaded({}, {})
        for path in sorted(self._manifests.glob("*/*/*.json")):
            try:
                stored = msgspec.json.decode(path.read_bytes(), type=Stored)
            except (OSError, msgspec.MsgspecError) as error:
                raise StoredManifestUnreadable(path, str(error)) from error
            key = key_of(stored)
            found.objects[key] = self._with_status(_resource(stored))
            if stored.provisional is not None:
                found.pending[key] = stored.provisional
        for leftover in self._manifests.glob("*/*/*.new"):
            leftover.unlink()
        return found

    def change(self, changes: Iterable[Change]) -> None:
        """Carry out *changes*; afterwards it survives a crash of the machine."""
        found = list(changes)
        put = [_stored(change) for change in found if change.written]
        drop = [key_of(change.resource) for change in found if change.action == "deleted"]
        with _DISK:
            self._change(put, drop)

    def _change(self, put: list[Stored], gone: list[Key]) -> None:
        if len(put) + len(gone) > 1:
            _write(self._manifests / _JOURNAL, msgspec.json.encode(_Batch(put, gone)))
            _sync_folder(self._manifests)
        self._apply(put, gone)
        if len(put) + len(gone) > 1:
            (self._manifests / _JOURNAL).unlink()

    def put_status(self, resource: Resource) -> None:
        """Keep the status of *resource* over a restart."""
        path = self._path(self._statuses, key_of(resource))
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, msgspec.json.encode(resource.manifest.get("status", {})), sync=False)

    def _apply(self, put: Iterable[Stored], drop: Iterable[Key]) -> None:
        folders = set()
        for resource in put:
            path = self._path(self._manifests, key_of(resource))
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, msgspec.json.encode(_without_status(resource)))
            folders.add(path.parent)
            if "status" in resource.manifest:
                self.put_status(resource)
        for key in drop:
            path = self._path(self._manifests, key)
            path.unlink(missing_ok=True)
            self._path(self._statuses, key).unlink(missing_ok=True)
            folders.add(path.parent)
        for folder in folders:
            if folder.exists():
                _sync_folder(folder)

    def _finish_batch(self) -> None:
        """Complete the change that a crash interrupted."""
        journal = self._manifests / _JOURNAL
        with suppress(FileNotFoundError):
            journal.with_name(f"{_JOURNAL}.new").unlink()
        if not journal.exists():
            return
        try:
            batch = msgspec.json.decode(journal.read_bytes(), type=_Batch)
        except (OSError, msgspec.MsgspecError) as error:
            raise StoredManifestUnreadable(journal, str(error)) from error
        self._apply(batch.put, batch.drop)
        journal.unlink()

    def _with_status(self, resource: Resource) -> Resource:
        path = self._path(self._statuses, key_of(resource))
        try:
            status: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.MsgspecError):
            return resource
        return structs.replace(resource, manifest={**resource.manifest, "status": status})

    @staticmethod
    def _path(root: Path, key: Key) -> Path:
        """Names are checked before they get here: no slash, not ``.`` or ``..``."""
        return root / key.kind / (key.namespace or _CLUSTER_WIDE) / f"{key.name}.json"


def _stored(change: Change) -> Stored:
    return Stored(**structs.asdict(change.resource), provisional=change.provisional)


def _resource(stored: Stored) -> Resource:
    given = {name: value for name, value in structs.asdict(stored).items() if name != "provisional"}
    return Resource(**given)


def _without_status(stored: Stored) -> Stored:
    manifest = {part: value for part, value in stored.manifest.items() if part != "status"}
    return structs.replace(stored, manifest=manifest)


def _write(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Replace *path* by *data* at once."""
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())
    new.rename(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
