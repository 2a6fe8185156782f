"""A bucket (or a pattern of it) as a mapping in memory that follows the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from cirri.kv import stream
from cirri.kv.errors import BucketMissing, BusError, BusTimeout
from cirri.kv.feed import HEARTBEAT_S, Feed
from cirri.kv.fold import Fold
from cirri.kv.link import Link, Message, Subscription
from cirri.kv.wire import (
    Bad,
    Marker,
    Raw,
    check_pattern,
    decode,
    decode_marker,
    is_marker,
    marker_key,
    matches,
    shard_of,
    subject_of,
)
from cirri.model.bucket import Bucket

T = TypeVar("T")

RETRY_S = (0.02, 0.25)
"""First and longest pause before a feed is tried again, e.g. while the bucket does not exist."""

MARKER_POLL_S = 1.0

CHECK_S, GRACE_S = 15.0, 1.0
"""How often a quiet table asks whether the store holds anything newer than it has."""


class _Changes:
    """Keys that one reader has not been told about yet."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.event = asyncio.Event()

    def add(self, keys: frozenset[str]) -> None:
        self.keys |= keys
        self.event.set()


class Table(Mapping[str, T], Generic[T]):
    """The last good state of *pattern* in *bucket*; see :mod:`cirri.kv.fold` for what that means.

    Used as ``async with``, or started by the runtime.  Reading it never waits.
    """

    def __init__(
        self,
        link: Link,
        bucket: Bucket[T],
        pattern: str = ">",
        *,
        log: Callable[..., None] | None = None,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self.bucket, self.pattern = bucket, check_pattern(bucket, pattern)
        self.ready = asyncio.Event()
        """Set once the first complete snapshot is in (with the owner's marker, where one service
        writes the whole bucket), never cleared."""
        self.bad_values = 0
        """Messages whose value could not be read."""
        self.bad: dict[str, str] = {}
        """Keys that hold such a value now, and why it cannot be read."""
        self.resyncs = 0
        """Snapshots taken after the first."""
        self._link, self._log, self._heartbeat_s = link, log, heartbeat_s
        self._fold: Fold[T] = Fold(lambda key: shard_of(bucket, key))
        self._readers: set[_Changes] = set()
        self._feed: Feed | None = None
        self._generation = 0
        self._certain = 0
        """Up to here the store holds nothing that this feed has not delivered."""
        self._folded = asyncio.Event()
        self._again = asyncio.Event()
        self._nudge = asyncio.Event()
        self._complete_once: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        first = self.pattern.split(".")[0]
        self._shards: tuple[str, ...] | None = ("",) if not bucket.shard else None
        if bucket.shard and first not in ("*", ">"):
            self._shards = (first,)
        sample = self._shards[0] if self._shards else "any"
        self._covers_marker = matches(self.pattern, marker_key(sample))
        # The markers of all shards can only be had with all of the bucket.
        self._subscribed = ">" if self._shards is None and not self._covers_marker else self.pattern
        self._covers_marker |= self._subscribed == ">"

    def __getitem__(self, key: str) -> T:
        return self._fold.cells[key].value

    def __iter__(self) -> Iterator[str]:
        return iter(self._fold.cells)

    def __len__(self) -> int:
        return len(self._fold.cells)

    def __contains__(self, key: object) -> bool:
        return key in self._fold.cells

    @property
    def revision(self) -> int:
        """Last stream sequence folded in (of this pattern)."""
        return self._fold.revision

    @property
    def complete(self) -> frozenset[str]:
        """Shards whose owner's marker stands ("" for a bucket with one writer)."""
        return frozenset(s for s in self._fold.eras if s not in self._fold.open)

    @property
    def stale(self) -> bool:
        """Whether the contents may be behind: disconnected, or the owner is rebuilding."""
        if self._feed is None or not self._feed.caught_up or self._feed.ended.is_set():
            return True
        return any(shard in self._complete_once or not shard for shard in self._fold.open)

    def revision_of(self, key: str) -> int:
        """The revision at which *key* got its value.  Raises: KeyError."""
        return self._fold.cells[key].revision

    async def changes(self) -> AsyncIterator[frozenset[str]]:
        """Keys that changed since the last item; first, when ready, all there are.

        A slow reader gets fewer and larger sets, never a queue.
        """
        reader = _Changes()
        try:
            await self.ready.wait()
            self._readers.add(reader)
            yield frozenset(self._fold.cells)
            while True:
                await reader.event.wait()
                reader.event.clear()
                keys, reader.keys = frozenset(reader.keys), set()
                yield keys
        finally:
            self._readers.discard(reader)

    async def caught_up(self, deadline_s: float = 2.0) -> None:
        """Return when everything that the store held at the time of the call is folded in.

        Raises: BusTimeout, BucketMissing.
        """
        try:
            async with asyncio.timeout(deadline_s):
                while True:
                    await self._link.connected.wait()
                    generation = self._link.generation
                    end = (await stream.info(self._link, self.bucket.name)).state.last_seq
                    target = await self._ahead(end)
                    while self._link.generation == generation:
                        if self._current(generation) and self._fold.revision >= target:
                            if not target:
                                return
                            target = await self._ahead(end)
                            continue
                        self._folded.clear()
                        await self._folded.wait()
        except TimeoutError:
            raise BusTimeout(f"table {self.bucket.name}/{self.pattern} to catch up", deadline_s) from None

    async def _ahead(self, end: int) -> int:
        """Revision of the first message up to *end* that is not folded in yet; 0 if there is none."""
        start, life = max(self._fold.revision, self._certain) + 1, self._feed
        if start <= end:
            found = await stream.following(self._link, self.bucket.name, self._subscribed, start)
            if 0 < found <= end:
                return found
        if self._feed is life:
            self._certain = max(self._certain, end)
        return 0

    def _current(self, generation: int) -> bool:
        feed = self._feed
        return feed is not None and feed.caught_up and self._generation == generation

    async def start(self) -> None:
        """Begin to follow; returns at once."""
        self.begin()

    def begin(self) -> None:
        """Begin to follow, in the background; needs no connection yet."""
        if self._task is None:
            self._task = self._link.tasks.start(self._follow(), name=f"table-{self.bucket.name}")

    async def close(self) -> None:
        """Stop following; the consumer on the server is removed."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def __aenter__(self) -> Table[T]:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _follow(self) -> None:
        watch: Subscription | None = None
        pause, longest = RETRY_S
        self._link.listeners.add(self._nudge.set)
        try:
            if not self._covers_marker and self._shards:
                subject = subject_of(self.bucket.name, marker_key(self._shards[0]))
                watch = await self._link.subscribe(subject, self._marker_seen)
            while True:
                await self._link.connected.wait()
                try:
                    await self._one_feed()
                    pause = RETRY_S[0]
                except BucketMissing:
                    pass
                except BusError as error:
                    self._say("table cannot follow", error=str(error))
                self._folded.set()
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
        finally:
            self._link.listeners.discard(self._nudge.set)
            self._feed = None
            if watch is not None:
                await watch.close()

    async def _one_feed(self) -> None:
        """Follow one consumer until it ends or must be replaced."""
        generation = self._link.generation
        name = self.bucket.name
        self._again.clear()
        self._certain = 0
        about = await stream.info(self._link, name)
        markers: dict[str, Marker] = {}
        if not self._covers_marker and self._shards:
            # Before the snapshot, so that all the marker speaks of is in it.
            stored = await stream.last(self._link, name, marker_key(self._shards[0]))
            markers[self._shards[0]] = decode_marker(stored.data if stored else None)
        self._fold.begin(about.created, about.state.last_seq, markers)
        feed = Feed(
            self._link, name, self._subscribed, self._take, self._complete, heartbeat_s=self._heartbeat_s
        )
        feed.on_end = self._nudge.set
        self._feed, self._generation = feed, generation
        try:
            await feed.open()
            while not feed.ended.is_set() and self._link.generation == generation:
                self._nudge.clear()
                if not self._link.connected.is_set() or self._again.is_set():
                    break
                waits_for_marker = bool(self._fold.open) and not self._covers_marker
                try:
                    async with asyncio.timeout(MARKER_POLL_S if waits_for_marker else CHECK_S):
                        await self._nudge.wait()
                except TimeoutError:
                    if await self._missed():
                        break
        finally:
            self.resyncs += 1
            if feed.ended.is_set():
                self._say("table starts over", why=feed.why)
            await feed.close()

    async def _missed(self) -> bool:
        """Whether the store says something that this feed should have said, and did not."""
        name = self.bucket.name
        if self._fold.open and not self._covers_marker and self._shards:
            stored = await stream.last(self._link, name, marker_key(self._shards[0]))
            return stored is not None and decode_marker(stored.data).complete
        end = (await stream.info(self._link, name)).state.last_seq
        if not (first := await self._ahead(end)):
            return False
        await asyncio.sleep(GRACE_S)  # it may be on its way
        if first <= self._fold.revision:
            return False
        self._say("table missed a message", revision=first, has=self._fold.revision)
        return True

    def _marker_seen(self, message: Message) -> None:
        if self._fold.open and decode_marker(message.data).complete:
            self._again.set()
            self._nudge.set()

    def _take(self, raw: Raw) -> None:
        if is_marker(raw.key):
            changed = self._fold.marker(shard_of(self.bucket, raw.key), decode_marker(raw.data), raw.revision)
        else:
            changed = self._fold.entry(raw.key, self._read(raw), raw.revision)
        if self._feed is not None and self._feed.caught_up:
            self._tell(changed)

    def _read(self, raw: Raw) -> T | Bad | None:
        if self._subscribed != self.pattern and not matches(self.pattern, raw.key):
            return None
        if raw.data is None:
            self.bad.pop(raw.key, None)
            return None
        word: T | Bad = decode(self.bucket, raw.key, raw.data)
        if isinstance(word, Bad):
            self.bad_values += 1
            if raw.key not in self.bad:
                self._say("value cannot be read", key=raw.key, revision=raw.revision, error=word.why)
            self.bad[raw.key] = word.why
        else:
            self.bad.pop(raw.key, None)
        return word

    def _complete(self) -> None:
        self._tell(self._fold.end(self._shards or ()))

    def _tell(self, changed: frozenset[str]) -> None:
        self._complete_once |= self._fold.eras.keys() - self._fold.open.keys()
        if changed:
            for reader in self._readers:
                reader.add(changed)
        self._folded.set()
        if not self.ready.is_set() and (self._shards is None or not self._fold.open):
            self.ready.set()

    def _say(self, event: str, **facts: Any) -> None:
        if self._log is not None:
            self._log(event, bucket=self.bucket.name, pattern=self.pattern, **facts)
