"""The engine of a publisher: keeps the store equal to a ledger, over every loss of the store.

Writes of different keys are pipelined; of one key only the newest waits.  After each reconnect
the store is compared with what it should hold, and what it has lost is written again, the
completeness marker last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import time_ns
from typing import Any

from cirri.kv import stream
from cirri.kv.errors import BusError, BusRefused, BusTimeout, BusUnavailable, NotPermitted
from cirri.kv.feed import snapshot
from cirri.kv.ledger import Ledger, Stored
from cirri.kv.link import Link, Message
from cirri.kv.wire import Marker, decode_marker, encode_marker, is_marker, marker_key, subject_of
from cirri.model.bucket import Bucket

WINDOW = 512
"""Writes in flight at most."""

RESEND_S = 2.0
CHECK_S = 10.0
"""How often an idle publisher looks whether the store still holds what it wrote."""

TOMBSTONES, MANY_TOMBSTONES, SWEEP = 1000, 50_000, 100
"""Deleted keys whose last message is kept in the store, also while there is much to write, and how many
are removed at a time."""

QUIET_S = 1.0
"""How long nothing is written before old deletions are removed: that costs the server more than writing."""

ACK_S = 0.2
"""How long the acknowledgement of a write that is in the store may take."""

NO_STREAM = 503
"""Code of the answer that there is no stream for a subject (any more)."""

RETRY_S = (0.02, 0.5)


class Writer:
    """Writes *bucket* (its *shard*); *gate* says whether it may now."""

    def __init__(
        self,
        link: Link,
        bucket: Bucket[Any],
        shard: str,
        *,
        gate: Callable[[], bool] | None,
        log: Callable[..., None] | None,
    ) -> None:
        self.bucket, self.shard = bucket, shard
        self.started = asyncio.Event()
        self.writes = 0
        self.rebuilds = 0
        self.ledger = Ledger()
        self.marker = Marker(complete=False)
        """The marker that the store holds."""
        self.marker_due = False
        self._link, self._gate, self._log = link, gate or (lambda: True), log
        self._sent: dict[str, tuple[str, float]] = {}  # key: reply subject, when
        self._waiting: dict[str, list[asyncio.Future[int]]] = {}
        self._announced = False  # the state is known to be whole, so a marker belongs in the store
        self._marker_waits: list[asyncio.Future[int]] = []
        self._created = ""
        self._era = 0
        self._wrote = 0.0  # when the store acknowledged something last (seconds of the loop's clock)
        self._live = False  # what the ledger says of the store can be relied on
        self._verify_due = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start to write in the background; needs no connection yet."""
        if self._task is None:
            self._task = self._link.tasks.start(self._pump(), name=f"publisher-{self.bucket.name}")

    async def close(self) -> None:
        """Write no more."""
        self._link.listeners.discard(self._wake.set)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def settled(self) -> None:
        """Return when everything wanted now is in the store."""
        if waits := [self._wait(key) for key in self.ledger.dirty]:
            self._wake.set()
            await asyncio.wait(waits)

    async def declare(self, marker: bool, timeout_s: float) -> int:
        """All that is wanted now is the whole state: wait until it is stored, then the marker.

        Returns the last revision.  Raises: BusTimeout, NotPermitted, BusRefused.
        """
        self._announced = True
        self.begin()
        waits = [self._wait(key) for key in self.ledger.dirty]
        if marker:
            self.ledger.owe()
            self.marker_due = True
            wait: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self._marker_waits.append(wait)
            waits.append(wait)
        self._wake.set()
        before = 0
        while waits:
            _, left = await asyncio.wait(waits, timeout=timeout_s)
            if not left:
                break
            if len(waits) - len(left) == before:
                for late in left:
                    late.cancel()
                raise BusTimeout(f"{len(left)} writes to bucket {self.bucket.name}", timeout_s, kept=True)
            before = len(waits) - len(left)
        errors = [error for wait in waits if (error := wait.exception()) is not None]
        if errors:
            raise errors[0]
        return self.ledger.high

    def _wait(self, key: str) -> asyncio.Future[int]:
        wait: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(wait)
        return wait

    async def write(self, key: str, data: bytes | None, timeout_s: float) -> int:
        """Have *data* (None: nothing) stored under *key*; returns the revision.

        Raises: BusTimeout, NotPermitted, BusRefused; it stays wanted in any case.
        """
        revision = self.ledger.want(key, data)
        if revision is not None:
            self._settle(key, revision)
            return revision
        wait = self._wait(key)
        await self._begin_to_send(key)
        try:
            async with asyncio.timeout(timeout_s):
                return await wait
        except TimeoutError:
            raise BusTimeout(f"{self.bucket.name}/{key}", timeout_s, kept=True) from None

    async def post(self, key: str, data: bytes | None) -> None:
        """Have *data* stored under *key* some time."""
        revision = self.ledger.want(key, data)
        if revision is None:
            await self._begin_to_send(key)
        else:
            self._settle(key, revision)

    async def _begin_to_send(self, key: str) -> None:
        self.begin()
        if self._live and key not in self._sent and len(self._sent) < WINDOW and self._gate():
            await self._send(key)
        else:
            self._wake.set()

    async def _send(self, key: str) -> None:
        data = self.ledger.send(key)
        subject = subject_of(self.bucket.name, key)
        inbox = self._link.expect(subject, partial(self._answered, key))
        self._sent[key] = (inbox, asyncio.get_running_loop().time())
        headers = {stream.OPERATION: "DEL"} if data is None else None
        try:
            await self._link.publish(subject, data or b"", reply=inbox, headers=headers)
        except BusUnavailable:
            self._unsent(key)
            self._doubt()

    def _unsent(self, key: str) -> None:
        """Stop waiting for the answer about *key*; it will be written again."""
        inbox, _ = self._sent.pop(key, ("", 0.0))
        self._link.forget(inbox)
        self.ledger.unsent(key)

    def _doubt(self) -> None:
        """Read the store again before the next write."""
        self._live, self._verify_due = False, True
        self._wake.set()

    def _answered(self, key: str, result: Message | BusError) -> None:
        try:
            ack = result if isinstance(result, BusError) else stream.ack_of(key, result)
        except BusRefused as error:
            ack = error
        if isinstance(ack, BusError) or ack.error is not None:
            self._unsent(key)
            self._doubt()
            if isinstance(ack, (NotPermitted, BusRefused)):
                self._fail(key, ack)
            elif not isinstance(ack, BusError) and ack.error is not None and ack.error.code != NO_STREAM:
                what = f"{self.bucket.name}/{key}"
                self._fail(key, BusRefused(what, ack.error.err_code or ack.error.code, ack.error.description))
            return
        self._sent.pop(key, None)
        self.writes += 1
        self._wrote = asyncio.get_running_loop().time()
        if self.ledger.arrived(key, ack.seq):
            self._settle(key, ack.seq)
        if self.ledger.dirty or self.marker_due:
            self._wake.set()

    def _settle(self, key: str, revision: int) -> None:
        for wait in self._waiting.pop(key, ()):
            if not wait.done():
                wait.set_result(revision)

    def _fail(self, key: str, error: BusError) -> None:
        for wait in self._waiting.pop(key, ()):
            if not wait.done():
                wait.set_exception(error)
        self._say("write refused", key=key, error=str(error))

    async def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        pause, longest = RETRY_S
        self._link.listeners.add(self._wake.set)
        while True:
            await self._link.connected.wait()
            began, generation = loop.time(), self._link.generation
            try:
                if self._gate():
                    await self._verify()
                    await self._converge(generation)
            except BusError as error:
                self._say("bucket cannot be written", error=str(error))
            finally:
                self._live = False
            # A server that refuses at once is asked less and less often.
            pause = RETRY_S[0] if loop.time() - began > 1.0 else min(pause * 2, longest)
            await asyncio.sleep(pause if self._gate() else RETRY_S[0])

    async def _converge(self, generation: int) -> None:
        """Write until the connection, the leadership or the trust in the store is lost."""
        loop = asyncio.get_running_loop()
        checked = loop.time()
        self._live = True
        link = self._link
        while self._live and link.generation == generation and link.connected.is_set() and self._gate():
            self._wake.clear()
            for key in self.ledger.due(WINDOW - len(self._sent)):
                # While one is sent, its turn may have come by another way.
                if self._live and key in self.ledger.dirty and key not in self._sent:
                    await self._send(key)
            if self.marker_due and not self.ledger.owed and self._live:
                await self._write_marker(complete=True)
            limit = TOMBSTONES if loop.time() - self._wrote > QUIET_S else MANY_TOMBSTONES
            if not self.ledger.dirty and not self.shard and len(self.ledger.tombstones) > limit:
                await self._sweep()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self._wake.wait()
            now = loop.time()
            for key in [k for k, (_, sent_at) in self._sent.items() if now - sent_at > RESEND_S]:
                self._unsent(key)
                self._doubt()
            if now - checked > CHECK_S and not self._sent:
                checked = now
                if not await self._intact():
                    self._verify_due = True
                    return

    async def _intact(self) -> bool:
        """Whether the store still ends with what this writer wrote last, which may go on meanwhile."""
        high = self.ledger.high
        about = await stream.info(self._link, self.bucket.name)
        if about.created != self._created or about.state.last_seq < high:
            return False
        newest = 0
        for pattern in self._patterns():
            found = await stream.last(self._link, self.bucket.name, pattern)
            newest = max(newest, found.revision if found else 0)
        if newest > self.ledger.high:
            await asyncio.sleep(ACK_S)
        return high <= newest <= self.ledger.high

    def _patterns(self) -> tuple[str, ...]:
        return (self.shard, f"{self.shard}.>") if self.shard else (">",)

    async def _verify(self) -> None:
        """Compare the store with what was written, and note what has to be written again."""
        name, ledger = self.bucket.name, self.ledger
        about = await stream.ensure(self._link, self.bucket)
        for key in tuple(self._sent):
            self._unsent(key)
            self._verify_due = True
        if self.started.is_set() and not self._verify_due and await self._intact():
            return
        if about.state.last_seq < ledger.high and not about.state.messages and not self.shard:
            await stream.raise_sequence(self._link, name, ledger.high + 1)
        found: dict[str, Stored] = {}
        tombstones: dict[str, int] = {}
        marker, newest = Marker(complete=False), 0
        for pattern in self._patterns():
            for key, raw in (await snapshot(self._link, name, pattern)).items():
                newest = max(newest, raw.revision)
                if is_marker(key):
                    marker = decode_marker(raw.data)
                elif raw.data is None:
                    tombstones[key] = raw.revision
                else:
                    found[key] = Stored(raw.data, raw.revision)
        lost = ledger.observe(found, tombstones, newest)
        lost |= self.marker.complete and marker.era != self.marker.era
        if not self.started.is_set():
            self._announced |= marker.complete
        self._created, self.marker, self._era = about.created, marker, max(self._era, marker.era)
        self.started.set()
        self._verify_due = False
        for key in [k for k in self._waiting if k not in ledger.dirty]:
            self._settle(key, ledger.stored[key].revision if key in ledger.stored else 0)
        if lost:
            self.rebuilds += 1
            self._say("the store lost state, writing it again", keys=len(ledger.dirty))
            if marker.complete:
                await self._write_marker(complete=False)
        if self._announced and (lost or not marker.complete):
            self.marker_due = True
            ledger.owe()

    async def _write_marker(self, *, complete: bool) -> None:
        self._era = max(self._era + 1, time_ns() // 1_000_000)
        subject = subject_of(self.bucket.name, marker_key(self.shard))
        data = encode_marker(complete=complete, era=self._era)
        ack = stream.ack_of(subject, await self._link.ask(subject, data, timeout_s=RESEND_S))
        if ack.error is not None:
            self._verify_due = True
            raise BusRefused(subject, ack.error.err_code or ack.error.code, ack.error.description)
        self.writes += 1
        self.marker = Marker(complete=complete, era=self._era)
        self.ledger.high = max(self.ledger.high, ack.seq)
        if complete:
            self.marker_due = False
            waits, self._marker_waits = self._marker_waits, []
            for wait in waits:
                if not wait.done():
                    wait.set_result(ack.seq)

    async def _sweep(self) -> None:
        """Remove the oldest tombstones; readers that were away take a snapshot anyway.

        Only where one service writes the whole bucket: the right to remove cannot be limited to a shard.
        """
        ledger, work = self.ledger, []
        for key in sorted(ledger.tombstones, key=ledger.tombstones.__getitem__)[:SWEEP]:
            revision = ledger.tombstones.pop(key)
            if key in ledger.wanted or key in self._sent or revision == ledger.high:
                continue
            # Nobody may write the key meanwhile: the removal would take that, too.
            self._sent[key] = ("", asyncio.get_running_loop().time())
            ledger.sent[key] = None
            work.append(key)
        try:
            name = self.bucket.name
            await asyncio.gather(*(stream.forget_key(self._link, name, key) for key in work))
        finally:
            for key in work:
                self._unsent(key)

    def _say(self, event: str, **facts: Any) -> None:
        if self._log is not None:
            self._log(event, bucket=self.bucket.name, shard=self.shard, **facts)
