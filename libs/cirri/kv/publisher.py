"""The one writer of a bucket, or of its shard of one.

It holds the wanted state in memory: what cannot be written now is written at the reconnect, what
the store has lost is written again (see :mod:`cirri.kv.writer`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from cirri.kv import verbs
from cirri.kv.errors import NotOwner
from cirri.kv.ledger import Stored
from cirri.kv.link import Link
from cirri.kv.wire import Bad, check_key, decode, encode, in_shard
from cirri.kv.writer import Writer
from cirri.model.bucket import Bucket

T = TypeVar("T")

TIMEOUT_S = 5.0
"""How long a caller waits for an acknowledgement; the wanted state is kept anyway."""


class _View(Mapping[str, T], Generic[T]):
    """What is in the store, decoded when it is looked at."""

    def __init__(self, bucket: Bucket[T], stored: dict[str, Stored]) -> None:
        self._bucket, self._stored = bucket, stored

    def __getitem__(self, key: str) -> T:
        value: T | Bad = decode(self._bucket, key, self._stored[key].data)
        if isinstance(value, Bad):
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[str]:
        for key, stored in self._stored.items():
            value: T | Bad = decode(self._bucket, key, stored.data)
            if not isinstance(value, Bad):
                yield key

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Publisher(Generic[T]):
    """Writes *bucket* (its *shard*); *gate* says whether it may now (leadership)."""

    def __init__(
        self,
        link: Link,
        bucket: Bucket[T],
        shard: str = "",
        *,
        gate: Callable[[], bool] | None = None,
        log: Callable[..., None] | None = None,
    ) -> None:
        self.bucket, self.shard = bucket, shard
        self._link = link
        self._writer = Writer(link, bucket, shard, gate=gate, log=log)

    @property
    def started(self) -> asyncio.Event:
        """Set once the store has been read."""
        return self._writer.started

    @property
    def stored(self) -> Mapping[str, T]:
        """What the store holds, as last read or acknowledged, without values that cannot be read."""
        return _View(self.bucket, self._writer.ledger.stored)

    @property
    def revision(self) -> int:
        """Highest revision of this writer."""
        return self._writer.ledger.high

    @property
    def behind(self) -> int:
        """Values that are wanted and not in the store yet."""
        return len(self._writer.ledger.dirty)

    @property
    def pending(self) -> int:
        """Writes that are wanted and not in the store yet."""
        return self.behind + self._writer.marker_due

    @property
    def writes(self) -> int:
        """Messages that the store has acknowledged."""
        return self._writer.writes

    @property
    def rebuilds(self) -> int:
        """How often the store had lost something that was written again."""
        return self._writer.rebuilds

    def begin(self) -> None:
        """Start to write in the background; needs no connection yet."""
        self._writer.begin()

    async def start(self) -> None:
        """Make the bucket if it is absent and read what is stored.  Waits for the bus."""
        self.begin()
        await self.started.wait()

    async def close(self) -> None:
        """Write no more."""
        await self._writer.close()

    async def settled(self) -> None:
        """Return when everything wanted now is in the store."""
        await self._writer.settled()

    async def put(self, value: T, *, timeout_s: float = TIMEOUT_S) -> int:
        """Store *value*; returns its revision.  An unchanged value is not written.

        Raises: KeyInvalid, ValueTooLarge, NotOwner (nothing is kept); BusTimeout (kept, and
        written when the bus is back); NotPermitted, BusRefused (kept, tried again later).
        """
        key, data = encode(self.bucket, value)
        return await self._writer.write(self._check_owner(key), data, timeout_s)

    async def post(self, value: T) -> None:
        """As put(), but returns when *value* is on its way.  It is kept, and sent until it is stored.

        Raises: KeyInvalid, ValueTooLarge, NotOwner.
        """
        key, data = encode(self.bucket, value)
        await self._writer.post(self._check_owner(key), data)

    async def delete(self, key: str, *, timeout_s: float = TIMEOUT_S) -> int:
        """Remove *key*; returns the revision of the removal, 0 if there was nothing to remove.

        Raises: as put().
        """
        key = self._check_owner(check_key(self.bucket, key))
        return await self._writer.write(key, None, timeout_s)

    async def create(self, value: T) -> int:
        """Store *value* if its key has none; returns its revision.

        Raises: KeyTaken; as put(), but nothing is kept when the bus is away.
        """
        key, data = encode(self.bucket, value)
        self._check_owner(key)
        revision = await verbs.create(self._link, self.bucket, key, data)
        self.note(key, data, revision)
        return revision

    def note(self, key: str, data: bytes | None, revision: int) -> None:
        """*key* was written past this publisher, by the same owner: it is wanted like that."""
        if in_shard(key, self.shard):
            self._writer.ledger.take_over(key, data, revision)

    async def replace(self, values: Iterable[T], *, timeout_s: float = TIMEOUT_S) -> int:
        """Make *values* the whole state, with the fewest writes, then mark it complete.

        Returns the last revision.  Raises: as put(); the time limit counts from the last progress.
        """
        fresh = dict(encode(self.bucket, value) for value in values)
        for key in fresh:
            self._check_owner(key)
        # A new owner marks what it finds as its own, even if it is all right: see cirri.kv.fold.
        marker = not self._writer.ledger.whole or not self._writer.marker.complete
        self._writer.ledger.want_all(fresh)
        return await self._writer.declare(marker, timeout_s)

    async def complete(self, *, timeout_s: float = TIMEOUT_S) -> int:
        """Say that what was put so far, with what was stored before, is the whole state.

        Returns and raises as replace().
        """
        return await self._writer.declare(not self._writer.marker.complete, timeout_s)

    def _check_owner(self, key: str) -> str:
        if not in_shard(key, self.shard):
            raise NotOwner(self.bucket.name, key, self.shard)
        return key
