"""One connection to the bus and everything that can be done over it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from cirri.kv import stream, verbs
from cirri.kv.errors import BucketMissing, RequestFailed
from cirri.kv.feed import snapshot
from cirri.kv.lease import Held
from cirri.kv.link import Handler, Link, Subscription
from cirri.kv.publisher import Publisher
from cirri.kv.table import Table
from cirri.kv.wire import Bad, check_key, check_pattern, decode, encode, is_marker
from cirri.model.bucket import Bucket

T = TypeVar("T")

ERROR_HEADER, ERROR_CODE_HEADER = "Nats-Service-Error", "Nats-Service-Error-Code"
"""Headers with which a NATS service says that a request failed."""

FIRST_CONNECT_S = 5.0


class Entry(NamedTuple, Generic[T]):
    """A value in a bucket."""

    key: str
    value: T
    revision: int


class Bus:
    """All that a service says and hears.

    ``Bus(...)`` with :meth:`begin` connects in the background; :meth:`connect` waits for it.
    """

    def __init__(
        self,
        url: str,
        *,
        user: str = "",
        password: str = "",
        name: str = "",
        ca: Path | None = None,
        replicas: int = 1,
        log: Callable[..., None] | None = None,
    ) -> None:
        self.link = Link(url, user=user, password=password, name=name, ca=ca, replicas=replicas)
        self.guard: Callable[[Bucket[Any], str], None] | None = None
        """Asked before each write of (bucket, key); raises if the caller may not."""
        self._log = log
        self._publishers: list[Publisher[Any]] = []
        self._tables: list[Table[Any]] = []

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        user: str = "",
        password: str = "",
        name: str = "",
        ca: Path | None = None,
        replicas: int = 1,
        timeout_s: float = FIRST_CONNECT_S,
    ) -> Bus:
        """A bus that is connected, and connects again for ever.  Raises: BusUnavailable."""
        bus = cls(url, user=user, password=password, name=name, ca=ca, replicas=replicas)
        bus.begin()
        try:
            await bus.link.wait(timeout_s)
        except BaseException:
            await bus.drain()
            raise
        return bus

    def begin(self) -> None:
        """Start to connect; returns at once."""
        self.link.start()

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self.link.connected.is_set()

    @property
    def tables(self) -> tuple[Table[Any], ...]:
        """Every table made here."""
        return tuple(self._tables)

    @property
    def publishers(self) -> tuple[Publisher[Any], ...]:
        """Every publisher made here."""
        return tuple(self._publishers)

    async def get(self, bucket: Bucket[T], key: str) -> Entry[T] | None:
        """The value of *key*; None if it has none or it cannot be read.

        Raises: KeyInvalid, BucketMissing, BusTimeout.
        """
        found = await stream.last(self.link, bucket.name, check_key(bucket, key))
        if found is None or found.data is None:
            return None
        value: T | Bad = decode(bucket, key, found.data)
        return None if isinstance(value, Bad) else Entry(key, value, found.revision)

    async def create(self, bucket: Bucket[T], value: T) -> int:
        """Store *value* if its key has none; returns its revision.

        Raises: KeyTaken, KeyInvalid, ValueTooLarge, NotOwner, BucketMissing, BusTimeout.
        """
        key, data = self._checked(bucket, value)
        revision = await verbs.create(self.link, bucket, key, data)
        self._note(bucket, key, data, revision)
        return revision

    async def put(self, bucket: Bucket[T], value: T, *, revision: int | None = None) -> int:
        """Store *value*; with *revision* only if its key is still at that one.  Returns its revision.

        Raises: StaleRevision, and as create().
        """
        key, data = self._checked(bucket, value)
        written = await verbs.write(self.link, bucket, key, data, expect=revision)
        self._note(bucket, key, data, written)
        return written

    async def delete(self, bucket: Bucket[Any], key: str, *, revision: int | None = None) -> int:
        """Remove *key*; with *revision* only if it is still at that one.  Returns the new revision.

        Raises: StaleRevision, KeyInvalid, NotOwner, BucketMissing, BusTimeout.
        """
        check_key(bucket, key)
        if self.guard is not None:
            self.guard(bucket, key)
        written = await verbs.write(self.link, bucket, key, None, expect=revision)
        self._note(bucket, key, None, written)
        return written

    async def keys(self, bucket: Bucket[Any], pattern: str = ">") -> list[str]:
        """Keys that match *pattern* and have a value, sorted.  Raises: as entries()."""
        found = await snapshot(self.link, bucket.name, check_pattern(bucket, pattern))
        return sorted(key for key, raw in found.items() if raw.data is not None and not is_marker(key))

    async def entries(self, bucket: Bucket[T], pattern: str = ">") -> list[Entry[T]]:
        """One correct snapshot of what matches *pattern*, by key; values that cannot be read are left out.

        Raises: KeyInvalid, BucketMissing, BusTimeout.
        """
        found = await snapshot(self.link, bucket.name, check_pattern(bucket, pattern))
        entries: list[Entry[T]] = []
        for key, raw in sorted(found.items()):
            if raw.data is None or is_marker(key):
                continue
            value: T | Bad = decode(bucket, key, raw.data)
            if not isinstance(value, Bad):
                entries.append(Entry(key, value, raw.revision))
        return entries

    async def ensure(self, bucket: Bucket[Any]) -> None:
        """Make *bucket* if it is absent."""
        await stream.ensure(self.link, bucket)

    async def exists(self, bucket: Bucket[Any]) -> bool:
        """Whether *bucket* has been made."""
        try:
            await stream.info(self.link, bucket.name)
        except BucketMissing:
            return False
        return True

    def table(self, bucket: Bucket[T], pattern: str = ">") -> Table[T]:
        """What matches *pattern*, followed; use it with ``async with`` or ``start()``."""
        table = Table(self.link, bucket, pattern, log=self._log)
        self._tables.append(table)
        return table

    def publisher(
        self, bucket: Bucket[T], shard: str = "", *, gate: Callable[[], bool] | None = None
    ) -> Publisher[T]:
        """The writer of *bucket*, or of its *shard* (the first token of its keys)."""
        publisher = Publisher(self.link, bucket, shard, gate=gate, log=self._log)
        self._publishers.append(publisher)
        return publisher

    def lease(self, service: str, name: str, holder: str, ttl_s: float) -> Held:
        """``async with`` it to be in charge of *name*; see :class:`cirri.kv.lease.Held`."""
        return Held(self.link, service, name, holder, ttl_s, log=self._log)

    @property
    def largest_message(self) -> int:
        """Bytes that the server takes in one message; 0 without a connection."""
        return self.link.largest_message

    async def request(self, subject: str, payload: bytes = b"", timeout_s: float = 5.0) -> bytes:
        """The answer of the service behind *subject*.

        Raises: RequestFailed (it said no), ServiceAway, NotPermitted, BusTimeout, BusUnavailable.
        """
        message = await self.link.ask(subject, payload, timeout_s=timeout_s)
        headers = message.headers or {}
        if ERROR_HEADER in headers:
            code = headers.get(ERROR_CODE_HEADER, "500")
            raise RequestFailed(subject, int(code) if code.isdigit() else 500, headers[ERROR_HEADER])
        return message.data

    async def publish(self, subject: str, payload: bytes = b"") -> None:
        """Send a message to whoever listens.  Raises: BusUnavailable."""
        await self.link.publish(subject, payload)

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """Call *handler* for each message on *subject*, over reconnects."""
        return await self.link.subscribe(subject, handler, queue=queue)

    def forget(self, tables: Iterable[Table[Any]], publishers: Iterable[Publisher[Any]]) -> None:
        """No longer count these, which were closed, among those made here."""
        gone = {id(each) for each in (*tables, *publishers)}
        self._tables = [t for t in self._tables if id(t) not in gone]
        self._publishers = [p for p in self._publishers if id(p) not in gone]

    async def drain(self) -> None:
        """Stop following and writing, send what is pending, disconnect."""
        for table in self._tables:
            await table.close()
        for publisher in self._publishers:
            await publisher.close()
        await self.link.close()

    def _checked(self, bucket: Bucket[T], value: T) -> tuple[str, bytes]:
        key, data = encode(bucket, value)
        if self.guard is not None:
            self.guard(bucket, key)
        return key, data

    def _note(self, bucket: Bucket[Any], key: str, data: bytes | None, revision: int) -> None:
        for publisher in self._publishers:
            if publisher.bucket.name == bucket.name:
                publisher.note(key, data, revision)
