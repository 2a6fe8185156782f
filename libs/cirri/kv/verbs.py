"""Single writes with compare-and-set, for whoever needs them past a publisher."""

from __future__ import annotations

from typing import Any

from cirri.kv import stream
from cirri.kv.errors import BucketMissing, BusRefused, KeyTaken, ServiceAway, StaleRevision
from cirri.kv.link import Link
from cirri.kv.wire import subject_of
from cirri.model.bucket import Bucket

WRITE_S = 2.0


async def write(
    link: Link,
    bucket: Bucket[Any],
    key: str,
    data: bytes | None,
    *,
    expect: int | None = None,
    timeout_s: float = WRITE_S,
) -> int:
    """Store *data* (None: a deletion) under *key*; returns its revision.

    With *expect* only if the key's last message has that revision (0: none).
    Raises: StaleRevision, BucketMissing, BusTimeout, BusError.
    """
    headers: dict[str, str] = {}
    if data is None:
        headers[stream.OPERATION] = "DEL"
    if expect is not None:
        headers[stream.EXPECT] = str(expect)
    subject = subject_of(bucket.name, key)
    try:
        message = await link.ask(subject, data or b"", timeout_s=timeout_s, headers=headers or None)
    except ServiceAway:
        raise BucketMissing(bucket.name) from None
    ack = stream.ack_of(subject, message)
    if ack.error is not None:
        if ack.error.err_code == stream.WRONG_SEQUENCE:
            raise StaleRevision(bucket.name, key, expect or 0)
        raise BusRefused(subject, ack.error.err_code or ack.error.code, ack.error.description)
    return ack.seq


async def create(link: Link, bucket: Bucket[Any], key: str, data: bytes) -> int:
    """Store *data* under *key* if it has no value; returns its revision.

    Raises: KeyTaken, BucketMissing, BusTimeout, BusError.
    """
    expect = 0
    while True:
        try:
            return await write(link, bucket, key, data, expect=expect)
        except StaleRevision:
            found = await stream.last(link, bucket.name, key)
            if found is not None and found.data is not None:
                raise KeyTaken(bucket.name, key, found.revision) from None
            # Deleted before: the removal is the message to follow on.  Purged meanwhile: none is.
            expect = found.revision if found is not None else 0
