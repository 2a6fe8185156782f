"""Objects with resource versions, and a window of what was changed: what lists and watches are made of."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

Object = dict[str, Any]
Name = tuple[str, str]
"""Namespace (empty for cluster-wide kinds) and name."""

WINDOW = 1000
"""Changes that a watch can begin before the newest."""
SNAPSHOTS = 8
"""Paged lists that can be under way at once; older ones have expired."""


class Expired(Exception):
    """What was asked for is too old: 410 Gone."""


class Change(NamedTuple):
    """One change of one object."""

    revision: int
    resource: str
    """``plural.group``, as a CRD is named; ``pods`` has no group."""
    name: Name
    before: Object | None
    after: Object | None
    """None: it is gone.  Otherwise *before* is None for a new object."""


class Objects:
    """Every object, by resource and name; objects are never changed in place."""

    def __init__(self, window: int = WINDOW) -> None:
        self.revision = 1
        self._objects: dict[str, dict[Name, Object]] = {}
        self._changes: deque[Change] = deque()
        self._window = window
        self._oldest = 1
        """A watch may begin here or later."""
        self._snapshots: dict[tuple[str, int], list[tuple[Name, Object]]] = {}
        self._news = asyncio.Event()

    def get(self, resource: str, name: Name) -> Object | None:
        """One object."""
        return self._objects.get(resource, {}).get(name)

    def all(self, resource: str) -> Mapping[Name, Object]:
        """Every object of *resource*."""
        return self._objects.get(resource, {})

    def put(self, resource: str, name: Name, manifest: Object, revision: int = 0) -> Object:
        """Store *manifest* as of *revision*, or the next; as it is stored."""
        at = revision or self.revision + 1
        stored = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": str(at)}}
        before = self.get(resource, name)
        self._objects.setdefault(resource, {})[name] = stored
        self._note(Change(at, resource, name, before, stored))
        return stored

    def remove(self, resource: str, name: Name, revision: int = 0) -> None:
        """It is gone as of *revision*, or the next; nothing happens if it is not there."""
        if (before := self._objects.get(resource, {}).pop(name, None)) is not None:
            self._note(Change(revision or self.revision + 1, resource, name, before, None))

    def snapshot(self, resource: str, revision: int = 0) -> list[tuple[Name, Object]]:
        """Everything of *resource* in order: as it is, or as it was when a list began.  Raises Expired."""
        if revision:
            try:
                return self._snapshots[resource, revision]
            except KeyError:
                raise Expired from None
        found = sorted(self.all(resource).items())
        self._snapshots.pop((resource, self.revision), None)
        self._snapshots[resource, self.revision] = found
        while len(self._snapshots) > SNAPSHOTS:
            del self._snapshots[next(iter(self._snapshots))]
        return found

    def since(self, revision: int) -> Iterator[Change]:
        """Changes after *revision*, oldest first.  Raises :class:`Expired`."""
        if revision < self._oldest:
            raise Expired
        late = []
        for change in reversed(self._changes):
            if change.revision <= revision:
                break
            late.append(change)
        return reversed(late)

    def forget(self) -> None:
        """Every version before the newest has expired, and every list that is under way."""
        self._changes.clear()
        self._snapshots.clear()
        self._oldest = self.revision

    async def after(self, revision: int, until: Callable[[], bool] = lambda: False) -> None:
        """Return when there is something newer than *revision*, or *until* holds after a :meth:`wake`."""
        while self.revision <= revision and not until():
            await self._news.wait()

    def wake(self) -> None:
        """Let everybody look again who waits in :meth:`after`."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _note(self, change: Change) -> None:
        self.revision = max(self.revision, change.revision)
        self._changes.append(change)
        while len(self._changes) > self._window:
            self._oldest = self._changes.popleft().revision
        self.wake()
