"""Being in charge of something, for as long as one says so.

A lease is a key whose owner renews it.  Time is measured by each reader's own clock: whoever has
not seen a renewal for the lease's ttl may take it over, by compare-and-set.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cirri.kv import stream, verbs
from cirri.kv.errors import BusError, KeyTaken, StaleRevision
from cirri.kv.link import Link, Message, Subscription
from cirri.kv.wire import Bad, Raw, decode, encode, subject_of
from cirri.model.lease import LEASES, Lease


class Held:
    """``async with`` it: the body runs while *holder* has the lease, or until ``lost`` is set."""

    def __init__(
        self,
        link: Link,
        service: str,
        name: str,
        holder: str,
        ttl_s: float,
        *,
        log: Callable[..., None] | None = None,
    ) -> None:
        self._link, self._ttl_s, self._log = link, ttl_s, log
        self._lease = Lease(service=service, name=name, holder=holder, ttl_s=ttl_s)
        self._key = LEASES.key(self._lease)
        # Tells our own writes from those of a process with the same holder name.
        self._count = secrets.randbits(40)
        self._mine: set[int] = set()
        self._revision = 0
        self._renewed = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self.lost = asyncio.Event()
        """Set when somebody else has the lease; it is not had again."""
        self.holder_seen = ""
        """Who has it while we wait."""

    def held(self) -> bool:
        """Whether it is ours by our own clock: what a writer asks before each write.

        False while the bus is away for longer than the ttl; true again after a renewal that
        found nobody else in between.
        """
        return not self.lost.is_set() and asyncio.get_running_loop().time() < self._renewed + self._ttl_s

    async def __aenter__(self) -> Held:
        await self._acquire()
        self._link.listeners.add(self._news.set)
        self._task = self._link.tasks.start(self._renew(), name=f"lease-{self._key}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._link.listeners.discard(self._news.set)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if not self.lost.is_set() and self._link.connected.is_set():
            with suppress(BusError):  # free at once for whoever waits
                await verbs.write(self._link, LEASES, self._key, None, expect=self._revision)
        self.lost.set()

    async def _acquire(self) -> None:
        watch: Subscription | None = None
        loop = asyncio.get_running_loop()
        seen, since, generation = -1, loop.time(), 0
        try:
            watch = await self._link.subscribe(subject_of(LEASES.name, self._key), self._heard)
            while True:
                self._news.clear()
                await self._link.connected.wait()
                if generation != self._link.generation:
                    # While the bus was away nobody could renew.
                    since, generation = loop.time(), self._link.generation
                try:
                    await stream.ensure(self._link, LEASES)
                    found = await stream.last(self._link, LEASES.name, self._key)
                    have = self._read(found)
                    now = loop.time()
                    if found is None and self.holder_seen and now - since < self._ttl_s:
                        pass  # the store was emptied: whoever had the lease goes first
                    else:
                        if (revision := found.revision if found else 0) != seen:
                            seen, since = revision, now
                        free = have is None or isinstance(have, Bad) or have.holder == self._lease.holder
                        if free or now - since >= max(
                            self._ttl_s, have.ttl_s if isinstance(have, Lease) else 0
                        ):
                            await self._write(revision)
                            return
                        self.holder_seen = have.holder if isinstance(have, Lease) else ""
                except (StaleRevision, KeyTaken):
                    continue
                except BusError as error:
                    self._say("lease cannot be asked for", error=str(error))
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._ttl_s / 8):
                        await self._news.wait()
        finally:
            if watch is not None:
                await watch.close()

    async def _renew(self) -> None:
        generation = self._link.generation
        while not self.lost.is_set():
            self._news.clear()
            # At once on a new connection: the store may have been emptied.
            if self.held() and generation == self._link.generation:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._ttl_s / 3):
                        await self._news.wait()
            await self._link.connected.wait()
            try:
                if generation != self._link.generation:
                    # A write to an emptied store would not even be refused: those who wait for the
                    # lease listen on its subject.
                    await stream.ensure(self._link, LEASES)
                    generation = self._link.generation
                await self._write(self._revision)
            except StaleRevision:
                await self._contested()
            except BusError as error:
                self._say("lease cannot be renewed", error=str(error))
                await asyncio.sleep(min(0.05, self._ttl_s / 10))
                with suppress(BusError):
                    await stream.ensure(self._link, LEASES)

    async def _contested(self) -> None:
        """The lease is not at our revision: find out who has it."""
        try:
            found = await stream.last(self._link, LEASES.name, self._key)
        except BusError:
            return
        if found is None:
            self._revision = 0  # the store was emptied; try to be the first
            return
        have = self._read(found)
        if have is not None and have.holder == self._lease.holder and have.renewed in self._mine:
            self._revision = found.revision  # our own write, whose answer was lost
            return
        self._say("lease lost", holder=have.holder if have else "")
        self.lost.set()

    async def _write(self, expect: int) -> None:
        self._count += 1
        self._mine.add(self._count)
        self._mine.discard(self._count - 64)
        lease = Lease(
            service=self._lease.service,
            name=self._lease.name,
            holder=self._lease.holder,
            ttl_s=self._ttl_s,
            renewed=self._count,
        )
        key, data = encode(LEASES, lease)
        started = asyncio.get_running_loop().time()
        limit_s = max(self._ttl_s / 3, 0.05)
        self._revision = await verbs.write(self._link, LEASES, key, data, expect=expect, timeout_s=limit_s)
        self._renewed = started

    def _read(self, raw: Raw | None) -> Lease | None:
        """Who has it; None if it is free or holds garbage."""
        if raw is None or raw.data is None:
            return None
        lease: Lease | Bad = decode(LEASES, self._key, raw.data)
        return None if isinstance(lease, Bad) else lease

    def _heard(self, _: Message) -> None:
        self._news.set()

    def _say(self, event: str, **facts: Any) -> None:
        if self._log is not None:
            self._log(event, lease=self._key, **facts)
