"""The one writer of a bucket, or of its shard of one.

It holds the wanted state in memory and keeps the store equal to it: what cannot be written now
is written at the reconnect, what the store has lost is written again, the completeness marker
last.  Writes of different keys are pipelined; of one key only the newest waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from time import time_ns
from typing import Any, Generic, NamedTuple, TypeVar

from cirri.kv import stream
from cirri.kv.errors import BusError, BusRefused, BusTimeout, BusUnavailable, NotOwner, NotPermitted
from cirri.kv.feed import snapshot
from cirri.kv.link import Link, Message
from cirri.kv.wire import (
    Bad,
    Marker,
    check_key,
    decode,
    decode_marker,
    encode,
    encode_marker,
    in_shard,
    is_marker,
    marker_key,
    subject_of,
)
from cirri.model.bucket import Bucket

T = TypeVar("T")

WINDOW = 512
"""Writes in flight at most."""

TIMEOUT_S = 5.0
"""How long a caller waits for an acknowledgement; the wanted state is kept anyway."""

RESEND_S = 2.0
CHECK_S = 10.0
"""How often an idle publisher looks whether the store still holds what it wrote."""

TOMBSTONES = 1000
"""Deleted keys whose last message is kept in the store."""

RETRY_S = (0.02, 0.5)


class _Stored(NamedTuple):
    data: bytes
    revision: int


class _Sent(NamedTuple):
    data: bytes | None
    inbox: str
    at: float


class _View(Mapping[str, T], Generic[T]):
    """What is in the store, decoded when it is looked at."""

    def __init__(self, bucket: Bucket[T], stored: dict[str, _Stored]) -> None:
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
        self.started = asyncio.Event()
        """Set once the store has been read."""
        self.writes = 0
        """Messages that the store has acknowledged."""
        self.rebuilds = 0
        """How often the store had lost something that was written again."""
        self._link, self._gate, self._log = link, gate or (lambda: True), log
        self._stored: dict[str, _Stored] = {}
        self._wanted: dict[str, bytes | None] = {}  # None: to be deleted
        self._dirty: dict[str, None] = {}  # ordered
        self._sent: dict[str, _Sent] = {}
        self._waiting: dict[str, list[asyncio.Future[int]]] = {}
        self._whole = False  # replace() was called: keys not wanted are to go
        self._announced = False  # the state is known to be whole, so a marker belongs in the store
        self._marker = Marker(complete=False)
        self._marker_due = False
        self._marker_waits: list[asyncio.Future[int]] = []
        self._owed: set[str] = set()  # keys that must be in before the marker
        self._created = ""
        self._high = 0  # highest revision of ours
        self._era = 0
        self._tombstones: dict[str, int] = {}
        self._live = False
        self._verify_due = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def stored(self) -> Mapping[str, T]:
        """What the store holds, as last read or acknowledged; values that cannot be read are not in it."""
        return _View(self.bucket, self._stored)

    @property
    def revision(self) -> int:
        """Highest revision of this writer."""
        return self._high

    @property
    def pending(self) -> int:
        """Keys whose wanted state is not in the store yet."""
        return len(self._dirty)

    def begin(self) -> None:
        """Start to write in the background; needs no connection yet."""
        if self._task is None:
            self._task = self._link.tasks.start(self._pump(), name=f"publisher-{self.bucket.name}")

    async def start(self) -> None:
        """Make the bucket if it is absent and read what is stored.  Waits for the bus."""
        self.begin()
        await self.started.wait()

    async def close(self) -> None:
        """Write no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def put(self, value: T, *, timeout_s: float = TIMEOUT_S) -> int:
        """Store *value*; returns its revision.  An unchanged value is not written.

        Raises: KeyInvalid, ValueTooLarge, NotOwner (nothing is kept); BusTimeout (kept, and
        written when the bus is back); NotPermitted, BusRefused (kept, tried again later).
        """
        key, data = encode(self.bucket, value)
        self._check_owner(key)
        self._wanted[key] = data
        have = self._stored.get(key)
        if have is not None and have.data == data and key not in self._sent:
            self._dirty.pop(key, None)
            self._arrived(key, have.revision)
            return have.revision
        return await self._written(key, timeout_s)

    async def delete(self, key: str, *, timeout_s: float = TIMEOUT_S) -> int:
        """Remove *key*; returns the revision of the removal, 0 if there was nothing to remove.

        Raises: as put().
        """
        check_key(self.bucket, key)
        self._check_owner(key)
        if self.started.is_set() and key not in self._stored and key not in self._sent:
            self._wanted.pop(key, None)
            self._dirty.pop(key, None)
            return 0
        self._wanted[key] = None
        return await self._written(key, timeout_s)

    async def create(self, value: T) -> int:
        """Store *value* if its key has none; returns its revision.

        Raises: KeyTaken; as put(), but nothing is kept when the bus is away.
        """
        key, data = encode(self.bucket, value)
        self._check_owner(key)
        from cirri.kv.verbs import create

        revision = await create(self._link, self.bucket, key, data)
        self.note(key, data, revision)
        return revision

    def note(self, key: str, data: bytes | None, revision: int) -> None:
        """*key* was written past this publisher, by the same owner: it is wanted like that."""
        if not in_shard(key, self.shard):
            return
        self._high = max(self._high, revision)
        self._dirty.pop(key, None)
        if data is None:
            self._stored.pop(key, None)
            self._wanted.pop(key, None)
        else:
            self._stored[key] = _Stored(data, revision)
            self._wanted[key] = data

    async def replace(self, values: Iterable[T], *, timeout_s: float = TIMEOUT_S) -> int:
        """Make *values* the whole state, with the fewest writes, then mark it complete.

        Returns the last revision.  Raises: as put(); the time limit counts from the last progress.
        """
        fresh = dict(encode(self.bucket, value) for value in values)
        for key in fresh:
            self._check_owner(key)
        gone = (self._wanted.keys() | self._stored.keys()) - fresh.keys()
        self._wanted = {**fresh, **dict.fromkeys(gone)}
        first, self._whole = not self._whole, True
        for key in self._wanted:
            self._mark(key)
        return await self._declare(first or not self._marker.complete, timeout_s)

    async def complete(self, *, timeout_s: float = TIMEOUT_S) -> int:
        """Say that what was put so far, with what was stored before, is the whole state."""
        return await self._declare(not self._marker.complete, timeout_s)

    async def _declare(self, marker: bool, timeout_s: float) -> int:
        self._announced = True
        waits = [self._wait(key) for key in self._dirty]
        if marker:
            self._owe_marker()
            wait: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self._marker_waits.append(wait)
            waits.append(wait)
        self._wake.set()
        done, before = 0, -1
        while waits:
            _, left = await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.ALL_COMPLETED)
            done = len(waits) - len(left)
            if not left:
                break
            if done == before:
                for late in left:
                    late.cancel()
                raise BusTimeout(f"{len(left)} writes to bucket {self.bucket.name}", timeout_s, kept=True)
            before = done
        for finished in waits:
            finished.result()
        return self._high

    async def settled(self) -> None:
        """Return when everything wanted now is in the store."""
        if waits := [self._wait(key) for key in self._dirty]:
            self._wake.set()
            await asyncio.wait(waits)

    def _check_owner(self, key: str) -> None:
        if not in_shard(key, self.shard):
            raise NotOwner(self.bucket.name, key, self.shard)

    def _mark(self, key: str) -> None:
        """Note whether *key* has to be written."""
        have, want = self._stored.get(key), self._wanted.get(key)
        if key in self._sent or not self.started.is_set() or (have.data if have else None) != want:
            self._dirty[key] = None
        else:
            self._dirty.pop(key, None)
            self._arrived(key, have.revision if have else 0)

    def _wait(self, key: str) -> asyncio.Future[int]:
        wait: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(wait)
        return wait

    async def _written(self, key: str, timeout_s: float) -> int:
        self._dirty[key] = None
        wait = self._wait(key)
        self.begin()
        if self._live and key not in self._sent and len(self._sent) < WINDOW and self._gate():
            await self._send(key)
        else:
            self._wake.set()
        try:
            async with asyncio.timeout(timeout_s):
                return await wait
        except TimeoutError:
            raise BusTimeout(f"{self.bucket.name}/{key}", timeout_s, kept=True) from None

    async def _send(self, key: str) -> None:
        data = self._wanted.get(key)
        subject = subject_of(self.bucket.name, key)
        inbox = self._link.expect(subject, partial(self._answered, key, data))
        self._sent[key] = _Sent(data, inbox, asyncio.get_running_loop().time())
        headers = {stream.OPERATION: "DEL"} if data is None else None
        try:
            await self._link.publish(subject, data or b"", reply=inbox, headers=headers)
        except BusUnavailable:
            self._link.forget(inbox)
            self._sent.pop(key, None)
            self._live = False
            self._wake.set()

    def _answered(self, key: str, data: bytes | None, result: Message | BusError) -> None:
        self._sent.pop(key, None)
        if isinstance(result, BusError):
            self._live = False
            if isinstance(result, NotPermitted):
                self._fail(key, result)
            self._wake.set()
            return
        try:
            ack = stream.ack_of(key, result)
        except BusRefused as error:
            ack = stream.Ack(error=stream.ApiError(code=error.code, description=error.text))
        if ack.error is not None:
            self._live, self._verify_due = False, True
            if ack.error.code != 503:
                what = f"{self.bucket.name}/{key}"
                self._fail(key, BusRefused(what, ack.error.err_code or ack.error.code, ack.error.description))
            self._wake.set()
            return
        self.writes += 1
        self._high = max(self._high, ack.seq)
        if data is None:
            self._stored.pop(key, None)
            self._tombstones[key] = ack.seq
            if self._wanted.get(key) is None:
                self._wanted.pop(key, None)
        else:
            self._stored[key] = _Stored(data, ack.seq)
            self._tombstones.pop(key, None)
        if self._wanted.get(key) == data:
            self._dirty.pop(key, None)
            self._arrived(key, ack.seq)
        if self._dirty or self._marker_due:
            self._wake.set()

    def _arrived(self, key: str, revision: int) -> None:
        self._owed.discard(key)
        for wait in self._waiting.pop(key, ()):
            if not wait.done():
                wait.set_result(revision)

    def _fail(self, key: str, error: BusError) -> None:
        for wait in self._waiting.pop(key, ()):
            if not wait.done():
                wait.set_exception(error)
        self._say("write refused", key=key, error=str(error))

    def _owe_marker(self) -> None:
        self._marker_due = True
        self._owed = set(self._dirty)

    async def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        pause, longest = RETRY_S
        while True:
            self._live = False
            await self._link.connected.wait()
            began = loop.time()
            try:
                if self._gate():
                    await self._verify()
                    await self._converge()
            except BusError as error:
                self._say("bucket cannot be written", error=str(error))
            # A server that refuses at once is asked less and less often.
            pause = RETRY_S[0] if loop.time() - began > 1.0 else min(pause * 2, longest)
            await asyncio.sleep(pause if self._gate() else RETRY_S[0])

    async def _converge(self) -> None:
        """Write until the connection or the trust in the store is lost."""
        loop = asyncio.get_running_loop()
        checked = loop.time()
        self._live = True
        while self._live and self._link.connected.is_set() and self._gate():
            self._wake.clear()
            for key in tuple(self._dirty):
                if len(self._sent) >= WINDOW or not self._live:
                    break
                if key not in self._sent:
                    await self._send(key)
            if self._marker_due and not self._owed and self._live:
                await self._write_marker(complete=True)
            if not self._dirty and not self.shard and len(self._tombstones) > TOMBSTONES:
                await self._sweep()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self._wake.wait()
            now = loop.time()
            for key, sent in tuple(self._sent.items()):
                if now - sent.at > RESEND_S:
                    self._link.forget(sent.inbox)
                    self._sent.pop(key, None)
            if now - checked > CHECK_S and not self._sent:
                checked = now
                if not await self._intact():
                    return

    async def _intact(self) -> bool:
        """Whether the store still ends with what this writer wrote last."""
        about = await stream.info(self._link, self.bucket.name)
        if about.created != self._created or about.state.last_seq < self._high:
            return False
        newest = 0
        for pattern in self._patterns():
            found = await stream.last(self._link, self.bucket.name, pattern)
            newest = max(newest, found.revision if found else 0)
        return newest == self._high

    def _patterns(self) -> tuple[str, ...]:
        return (self.shard, f"{self.shard}.>") if self.shard else (">",)

    async def _verify(self) -> None:
        """Compare the store with what was written, and note what has to be written again."""
        name = self.bucket.name
        about = await stream.ensure(self._link, self.bucket)
        if self.started.is_set() and not self._verify_due and not self._sent and await self._intact():
            return
        if about.state.last_seq < self._high and not about.state.messages and not self.shard:
            await stream.raise_sequence(self._link, name, self._high + 1)
        found: dict[str, _Stored] = {}
        marker, newest = Marker(complete=False), 0
        self._tombstones.clear()
        for pattern in self._patterns():
            for key, raw in (await snapshot(self._link, name, pattern)).items():
                newest = max(newest, raw.revision)
                if is_marker(key):
                    marker = decode_marker(raw.data)
                elif raw.data is None:
                    self._tombstones[key] = raw.revision
                else:
                    found[key] = _Stored(raw.data, raw.revision)
        lost = any(key not in found or found[key].data != had.data for key, had in self._stored.items())
        lost |= self._marker.complete and marker.era != self._marker.era
        if not self.started.is_set():
            self._announced |= marker.complete
        self._created, self._high = about.created, newest
        self._stored.clear()
        self._stored.update(found)
        self._marker, self._era = marker, max(self._era, marker.era)
        for key, stored in found.items():
            self._wanted.setdefault(key, None if self._whole else stored.data)
        self.started.set()
        self._verify_due = False
        self._dirty.clear()
        for key in tuple(self._wanted):
            self._mark(key)
            if self._wanted[key] is None and key not in self._dirty:
                del self._wanted[key]
        if lost:
            self.rebuilds += 1
            self._say("the store lost state, writing it again", keys=len(self._dirty))
            if marker.complete:
                await self._write_marker(complete=False)
        if self._announced and (lost or not marker.complete):
            self._marker_due = True
        self._owed = set(self._dirty)

    async def _write_marker(self, *, complete: bool) -> None:
        self._era = max(self._era + 1, time_ns() // 1_000_000)
        subject = subject_of(self.bucket.name, marker_key(self.shard))
        data = encode_marker(complete=complete, era=self._era)
        ack = stream.ack_of(subject, await self._link.ask(subject, data, timeout_s=RESEND_S))
        if ack.error is not None:
            self._verify_due = True
            raise BusRefused(subject, ack.error.err_code or ack.error.code, ack.error.description)
        self.writes += 1
        self._marker = Marker(complete=complete, era=self._era)
        self._high = max(self._high, ack.seq)
        if complete:
            self._marker_due = False
            waits, self._marker_waits = self._marker_waits, []
            for wait in waits:
                if not wait.done():
                    wait.set_result(ack.seq)

    async def _sweep(self) -> None:
        """Remove the oldest tombstones; readers that were away take a snapshot anyway.

        Only where one service writes the whole bucket: the right to purge cannot be limited to a shard.
        """
        loop = asyncio.get_running_loop()
        for key in sorted(self._tombstones, key=self._tombstones.__getitem__)[:100]:
            revision = self._tombstones.pop(key)
            if key in self._wanted or key in self._sent or revision == self._high:
                continue
            self._sent[key] = _Sent(None, "", loop.time())  # nobody writes the key meanwhile
            try:
                await stream.forget_key(self._link, self.bucket.name, key)
            finally:
                self._sent.pop(key, None)

    def _say(self, event: str, **facts: Any) -> None:
        if self._log is not None:
            self._log(event, bucket=self.bucket.name, shard=self.shard, **facts)
