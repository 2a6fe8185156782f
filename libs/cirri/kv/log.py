"""Streams that are appended to and read in order: not the last word of each key, but all that was said."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

import msgspec

from cirri.kv import stream
from cirri.kv.errors import BucketMissing, BusError, BusRefused, LogMissing, NotPermitted, ServiceAway
from cirri.kv.link import Link, Message, Subscription, status_of
from cirri.model.bucket import token

APPEND_S = 2.0
"""How long a message may take to be stored."""
HEARTBEAT_S = 2.0
"""How often the server speaks to a reader; after 2.5 times that it counts as lost."""
RETRY_S = 0.2
DUPLICATES_S = 120
"""For so long a message that is sent again, because nobody knows whether it arrived, is stored once."""
MESSAGE_ID = "Nats-Msg-Id"


class Limits(NamedTuple):
    """What a log keeps: the oldest messages go first."""

    age_s: float
    bytes: int


class Entry(NamedTuple):
    """One message of a log."""

    subject: str
    data: bytes
    seq: int
    time_ns: int
    """Unix time at which it was stored."""


async def ensure(link: Link, name: str, subjects: tuple[str, ...], limits: Limits) -> None:
    """Have log *name* with these *subjects* and *limits*, whatever was there.  Raises: BusError."""
    config = {
        "name": name,
        "subjects": list(subjects),
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "num_replicas": link.replicas,
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": limits.bytes,
        "max_age": int(limits.age_s * 1e9),
        "max_msgs_per_subject": -1,
        "duplicate_window": int(min(DUPLICATES_S, limits.age_s) * 1e9),
        "deny_delete": True,
    }
    body = msgspec.json.encode(config)
    try:
        await stream.call(link, f"STREAM.CREATE.{name}", body, stream.StreamInfo, name)
    except BusRefused as error:
        if error.code != stream.NAME_IN_USE:
            raise
        await stream.call(link, f"STREAM.UPDATE.{name}", body, stream.StreamInfo, name)
    await _whole(link, name)


async def append(link: Link, subject: str, data: bytes, number: str) -> None:
    """Store *data* under *subject*; *number* tells it from every other message of some minutes.

    Raises: LogMissing (no log takes the subject), BusTimeout, BusUnavailable (it may be stored), BusError.
    """
    try:
        answer = await link.ask(subject, data, timeout_s=APPEND_S, headers={MESSAGE_ID: number})
    except ServiceAway:
        raise LogMissing(subject) from None
    ack = stream.ack_of(subject, answer)
    if ack.error is not None:
        raise BusRefused(subject, ack.error.err_code or ack.error.code, ack.error.description)


async def _whole(link: Link, name: str) -> None:
    """Return when the store of *name* is open (see :func:`cirri.kv.stream.info`), if one may know."""
    with suppress(NotPermitted):
        while name not in link.whole_streams:
            about = await stream.call(link, f"STREAM.INFO.{name}", b"", stream.StreamInfo, name)
            if not about.created.startswith(stream.NOT_CREATED):
                link.whole_streams.add(name)
            else:
                await asyncio.sleep(stream.CREATION_POLL_S)


class Tail:
    """Messages of log *name* whose subject is like *pattern*, in order; over reconnects none twice.

    The server sends no more than the reader takes.  Used as ``async with``, which raises LogMissing if there
    is none; without, :meth:`entries` waits for it, and :meth:`close` has to be called.
    """

    def __init__(self, link: Link, name: str, pattern: str, since_ns: int | None) -> None:
        """*since_ns*: unix time of storing from which on messages count; None: from now on."""
        self._link, self._name, self._pattern = link, name, pattern
        self._since_ns = since_ns
        self._last = (0, 0)
        """(time, sequence) of the last message taken."""
        self._queue: deque[Entry | Message] = deque()
        self._some = asyncio.Event()
        self._subscription: Subscription | None = None
        self._consumer = ""
        self._pending = self._delivered = 0
        self._ended = True
        self._heard = 0.0

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def next(self, *, wait: bool) -> Entry | None:
        """The next message; None: there was none when this was asked, and *wait* is false.

        Raises: LogMissing, NotPermitted, BusError; with *wait* only NotPermitted.
        """
        while True:
            while self._queue:
                item = self._queue.popleft()
                if not isinstance(item, Entry):  # all before has been taken: more may be sent
                    with suppress(BusError):
                        await self._link.publish(item.reply)
                    continue
                if (item.time_ns, item.seq) <= self._last and item.time_ns == self._last[0]:
                    continue
                self._last = (item.time_ns, item.seq)
                return item
            if not self._ended and not wait and self._pending == 0:
                return None
            if self._ended or not self._link.connected.is_set():
                await self._again(wait=wait)
                continue
            self._some.clear()
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._some.wait()
            except TimeoutError:
                silent = asyncio.get_running_loop().time() - self._heard
                self._ended |= silent > 2.5 * HEARTBEAT_S

    async def entries(self, *, follow: bool) -> AsyncIterator[Entry]:
        """All there are; with *follow* also all that come."""
        while (entry := await self.next(wait=follow)) is not None:
            yield entry

    async def _again(self, *, wait: bool) -> None:
        while True:
            try:
                await self.close()
                await self._open()
                return
            except NotPermitted:
                raise
            except BusError:
                if not wait:
                    raise
                if self._since_ns is None:
                    self._since_ns = time.time_ns()  # what comes before there is a reader counts
                await asyncio.sleep(RETRY_S)

    async def _open(self) -> None:
        link, name = self._link, self._name
        self._queue.clear()
        self._delivered, self._pending, self._ended = 0, 1, False
        try:
            await _whole(link, name)
            inbox = link.new_inbox()
            self._subscription = await link.subscribe(inbox, self._take)
            self._consumer = f"{token(link.name or 'anyone')}_{secrets.token_hex(8)}"
            config: dict[str, Any] = {
                "name": self._consumer,
                "deliver_subject": inbox,
                "filter_subject": self._pattern,
                "ack_policy": "none",
                "replay_policy": "instant",
                "max_deliver": 1,
                "flow_control": True,
                "idle_heartbeat": int(HEARTBEAT_S * 1e9),
                "inactive_threshold": 5_000_000_000,
                "mem_storage": True,
                "num_replicas": 1,
                **self._start(),
            }
            body = msgspec.json.encode({"stream_name": name, "config": config})
            subject = f"CONSUMER.CREATE.{name}.{self._consumer}.{self._pattern}"
            made = await stream.call(link, subject, body, stream.ConsumerInfo, name)
        except BucketMissing:
            self._ended = True
            await self.close()
            raise LogMissing(name) from None
        except BaseException:
            self._ended = True
            await self.close()
            raise
        self._heard = asyncio.get_running_loop().time()
        if not self._delivered:
            self._pending = made.num_pending + made.delivered.consumer_seq
        if self._since_ns is None:
            self._since_ns = time.time_ns()  # where to go on without any message

    def _start(self) -> dict[str, Any]:
        since = self._last[0] or self._since_ns
        if since is None:
            return {"deliver_policy": "new"}
        if since <= 0:
            return {"deliver_policy": "all"}
        seconds, nanoseconds = divmod(since, 1_000_000_000)
        at = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09}Z"
        return {"deliver_policy": "by_start_time", "opt_start_time": at}

    async def close(self) -> None:
        """Read no more."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()
        if self._consumer and self._link.connected.is_set():
            # It would end by itself in some seconds; a user may lack the permission.
            with suppress(BusError):
                await self._link.publish(f"$JS.API.CONSUMER.DELETE.{self._name}.{self._consumer}")
        self._consumer = ""

    async def _take(self, message: Message) -> None:
        if self._ended:
            return
        self._heard = asyncio.get_running_loop().time()
        if message.headers and (status := status_of(message)) and not message.data:
            if status != "100":
                self._ended = True
            elif message.reply:
                self._queue.append(message)
            elif int(message.headers.get("Nats-Last-Consumer", "0")) != self._delivered:
                self._ended = True
            elif (stalled := message.headers.get("Nats-Consumer-Stalled")) and not self._queue:
                await self._link.publish(stalled)
            self._some.set()
            return
        # See cirri.kv.feed: the last of these are stream and consumer sequence, time, what is left.
        parts = message.reply.split(".")
        if len(parts) < 9:
            return
        start = 4 if len(parts) == 9 else 6
        seq, delivered, time_ns, pending = (int(part) for part in parts[start + 1 : start + 5])
        if delivered != self._delivered + 1:
            self._ended = True
        else:
            self._delivered, self._pending = delivered, pending
            self._queue.append(Entry(message.subject, message.data, seq, time_ns))
        self._some.set()
