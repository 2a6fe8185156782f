"""Bucket ``resources`` as the API server has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from msgspec import Struct

from cirri.errors import CirriError
from cirri.kubernetes.bridge import kept
from cirri.kubernetes.bridge.reflector import Delta, Place
from cirri.kubernetes.state import Key
from cirri.model import RESOURCES, Resource


class Posting(Protocol):
    """What is used of :class:`cirri.kv.Publisher`."""

    async def post(self, value: Resource) -> None:
        """Write *value* if it changed; returns when it is on its way."""

    async def delete(self, key: str) -> int:
        """Remove *key*."""

    async def complete(self) -> int:
        """Say that what was put is the whole state."""


class Mirror:
    """Puts and drops what reflectors tell.

    It holds no object, only under which key of the bucket each one is.  What an earlier life left there
    stays until a whole list of its kind lacks it.
    """

    def __init__(
        self,
        bucket: Posting,
        stored: Iterable[tuple[str, Resource]],
        kinds: Iterable[str],
        *,
        refused: Callable[[Key, str], None] = lambda key, why: None,
        noted: Callable[[Key, Resource | None], None] = lambda key, resource: None,
    ) -> None:
        """*refused* hears of objects that cannot be taken, and "" when they can; *noted* of every change."""
        self._bucket = bucket
        self._refused, self._noted = refused, noted
        self._keys: dict[Key, str] = {}
        self._wrong: dict[Key, str] = {}
        self._due = set(kinds)
        """Kinds of which no whole list was told yet."""
        self._others: list[str] = []
        """Keys of kinds that no API server is asked for, from a life without one."""
        for key, each in stored:
            if each.kind in self._due:
                self._keys[Key(each.kind, each.namespace, each.name)] = key
            else:
                self._others.append(key)
        self.complete = asyncio.Event()
        """Set once every kind was told whole, and the bucket says so."""

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, key: Key) -> str | None:
        """Where the bucket has *key*; None if it has not."""
        return self._keys.get(key)

    def known(self, kind: str) -> list[Place]:
        """The objects of *kind* that the bucket has."""
        return [Place(key.namespace, key.name) for key in self._keys if key.kind == kind]

    async def take(self, kind: str, deltas: Sequence[Delta[Struct]], *, whole: bool) -> None:
        """Carry out *deltas*; *whole*: with them everything of *kind* has been told."""
        drops: list[str] = []
        for place, item in deltas:
            key = Key(kind, place.namespace, place.name)
            if item is None:
                self._wrong.pop(key, None)
                if (old := self._keys.pop(key, None)) is not None:
                    drops.append(old)
                self._noted(key, None)
            elif (found := self._read(key, item.value)) is not None:
                drops += await self._put(key, found)
        await self._drop(drops)
        if whole and kind in self._due:
            self._due.discard(kind)
            if not self._due:
                await self._drop(self._others)
                self._others = []
                with suppress(CirriError):  # kept, and said as soon as the bus allows
                    await self._bucket.complete()
                self.complete.set()

    def _read(self, key: Key, value: Struct | None) -> Resource | None:
        """None: the version before stays, since going on without it could open what it closes."""
        try:
            if value is None:
                raise kept.Refused([])
            found = kept.resource(key.kind, value)
        except kept.Refused as refused:
            self._complain(key, str(refused) or "cannot be read")
            return None
        if self._wrong.pop(key, ""):
            self._refused(key, "")
        return found

    def _complain(self, key: Key, why: str) -> None:
        """Say it once: what is said becomes a status, and comes back as a change of the same object."""
        if self._wrong.get(key) != why:
            self._wrong[key] = why
            self._refused(key, why)

    async def _put(self, key: Key, resource: Resource) -> list[str]:
        """Publish *resource*; the key that it had before if it has another one now."""
        now, old = RESOURCES.key(resource), self._keys.get(key)
        try:
            await self._bucket.post(resource)
        except CirriError as error:  # too large for a value of the bus
            self._complain(key, str(error))
            return []
        self._keys[key] = now
        self._noted(key, resource)
        return [old] if old is not None and old != now else []

    async def _drop(self, keys: Sequence[str]) -> None:
        """Remove *keys*; while the bus is away they are remembered as not wanted."""
        outcome = await asyncio.gather(*map(self._bucket.delete, keys), return_exceptions=True)
        for each in outcome:
            if isinstance(each, BaseException) and not isinstance(each, CirriError):
                raise each


def identity(stored: Mapping[str, Resource]) -> str:
    """The uid of the cluster that *stored* is of (its namespace ``kube-system``); empty: it is of none."""
    found = stored.get(RESOURCES.key(Resource(kind="Namespace", name="kube-system")))
    metadata: dict[str, Any] = found.manifest.get("metadata") or {} if found is not None else {}
    return str(metadata.get("uid", ""))
