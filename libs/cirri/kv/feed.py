"""An ordered consumer: every message of a pattern, in order, or word that one was missed.

nats-py's watcher can announce an empty snapshot and leaks its consumers; this one takes the
snapshot for complete at the message with nothing pending behind it, and deletes its consumer.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable
from contextlib import suppress

from cirri.kv import stream
from cirri.kv.errors import BusError, BusTimeout, NotPermitted
from cirri.kv.link import Link, Message, Subscription, status_of
from cirri.kv.wire import Raw, subject_of
from cirri.model.bucket import token

HEARTBEAT_S = 2.0
"""How often the server speaks on a quiet feed; after 2.5 times that the feed counts as lost."""

_serial = itertools.count(1)


class Feed:
    """One life of an ordered consumer; ``ended`` is set when it cannot go on.

    *entry* gets each message, *complete* is called once, when the snapshot (the last message of
    each key at the start) has been delivered.  Both are called from the event loop, in order.
    """

    def __init__(
        self,
        link: Link,
        bucket: str,
        pattern: str,
        entry: Callable[[Raw], None],
        complete: Callable[[], None],
        *,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._link, self._bucket, self._pattern = link, bucket, pattern
        self._entry, self._complete = entry, complete
        self._heartbeat_s = heartbeat_s
        self.name = f"{token(link.name or 'anyone')}_{secrets.token_hex(4)}_{next(_serial)}"
        """Of the consumer on the server, where ``cirri status`` finds it."""
        self.ended = asyncio.Event()
        self.why = ""
        """Why it ended."""
        self.on_end: Callable[[], None] | None = None
        self.caught_up = False
        """Whether the snapshot has been delivered."""
        self._delivered = 0
        self._pending: int | None = None  # unknown until the server has answered
        self._heard = self._due = 0.0  # when the server spoke last, when to look again
        self._timer: asyncio.TimerHandle | None = None
        self._subscription: Subscription | None = None

    async def open(self) -> None:
        """Make the consumer.  Raises: BucketMissing, NotPermitted, BusError."""
        inbox = self._link.new_inbox()
        self._subscription = await self._link.subscribe(inbox, self._take)
        config = {
            "deliver_subject": inbox,
            "deliver_policy": "last_per_subject",
            "filter_subject": subject_of(self._bucket, self._pattern),
            "ack_policy": "none",
            "replay_policy": "instant",
            "max_deliver": 1,
            "flow_control": True,
            "idle_heartbeat": int(self._heartbeat_s * 1e9),
            "inactive_threshold": 5_000_000_000,
            "mem_storage": True,
            "num_replicas": 1,
        }
        made = await stream.consume(self._link, self._bucket, self.name, config)
        if inbox.lower() in self._link.refused:
            raise NotPermitted(self._link.user, "subscribe", inbox)
        self._pending = made.num_pending + made.delivered.consumer_seq
        self._heard = self._due = asyncio.get_running_loop().time()
        self._watch()
        if self._pending == 0:
            self._done()

    async def close(self) -> None:
        """Stop, and remove the consumer from the server."""
        if self._timer is not None:
            self._timer.cancel()
        self._end("closed")
        if self._subscription is not None:
            await self._subscription.close()
        if self._link.connected.is_set():
            with suppress(BusError):
                await stream.drop_consumer(self._link, self._bucket, self.name)

    async def _take(self, message: Message) -> None:
        if self.ended.is_set():
            return
        self._heard = asyncio.get_running_loop().time()
        if message.headers and (status := status_of(message)) and not message.data:
            if status == "100":
                await self._control(message)
            else:
                self._end(f"status {status}")
            return
        # $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>,
        # with domain and account in front and a random token behind from 2.10 on.
        parts = message.reply.split(".")
        if len(parts) < 9:
            return
        start = 4 if len(parts) == 9 else 6
        revision, delivered, pending = int(parts[start + 1]), int(parts[start + 2]), int(parts[start + 4])
        if delivered != self._delivered + 1:
            self._end(f"message {self._delivered + 1} was lost, {delivered} came")
            return
        self._delivered = delivered
        self._entry(stream.raw_of(self._bucket, message, revision))
        if pending == 0 and not self.caught_up:
            self._done()

    async def _control(self, message: Message) -> None:
        headers = message.headers or {}
        if message.reply:  # flow control: the server waits for this answer before it sends more
            await self._link.publish(message.reply)
            return
        if stalled := headers.get("Nats-Consumer-Stalled"):
            await self._link.publish(stalled)
        sent = int(headers.get("Nats-Last-Consumer", "0"))
        if sent != self._delivered:
            self._end(f"message {sent} was lost after {self._delivered}")
        elif not self.caught_up and not stalled and self._pending is not None and sent > 0:
            # Heartbeats come only when there is nothing left to send.
            self._done()

    def _done(self) -> None:
        if not self.caught_up:
            self.caught_up = True
            self._complete()

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        now, pause = loop.time(), self._heartbeat_s / 2
        if (stood_still := now - self._due) > pause:
            # This process did: what the server said meanwhile is still to be read.
            self._heard += stood_still
        silent = now - self._heard
        if silent > 2.5 * self._heartbeat_s:
            self._end(f"no heartbeat for {silent:.1f} s")
        elif not self.ended.is_set():
            self._due = now + pause
            self._timer = loop.call_at(self._due, self._watch)

    def _end(self, why: str) -> None:
        if not self.ended.is_set():
            self.why = why
            self.ended.set()
            if self.on_end is not None:
                self.on_end()


SNAPSHOT_S = 10.0


async def snapshot(link: Link, bucket: str, pattern: str) -> dict[str, Raw]:
    """The last message of each key that matches *pattern*, deletions included, once.

    Raises: BucketMissing, BusTimeout, BusError.
    """
    for _ in range(3):
        found: dict[str, Raw] = {}
        complete = asyncio.Event()

        def take(raw: Raw, found: dict[str, Raw] = found) -> None:
            found[raw.key] = raw

        feed = Feed(link, bucket, pattern, take, complete.set)
        try:
            async with asyncio.timeout(SNAPSHOT_S):
                await feed.open()
                while not complete.is_set() and not feed.ended.is_set() and link.connected.is_set():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.5):
                            await complete.wait()
        except TimeoutError:
            raise BusTimeout(f"a snapshot of {bucket}/{pattern}", SNAPSHOT_S) from None
        finally:
            await feed.close()
        if complete.is_set():
            return found
    raise BusTimeout(f"a snapshot of {bucket}/{pattern} ({feed.why})", SNAPSHOT_S)
