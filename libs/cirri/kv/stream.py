"""JetStream's API, as far as buckets need it: streams, single messages, consumers."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import msgspec

from cirri.kv.errors import BucketMissing, BusRefused, BusUnavailable, ServiceAway
from cirri.kv.link import Link, Message, status_of
from cirri.kv.wire import MAX_MESSAGE_BYTES, Raw, stream_name, subject_of
from cirri.model.bucket import Bucket

R = TypeVar("R")

API_S = 2.0
"""Time limit of one API call."""

STREAM_MISSING, MESSAGE_MISSING, WRONG_SEQUENCE, NAME_IN_USE = 10059, 10037, 10071, 10058
"""JetStream error codes (nats-server ``server/errors.json``)."""

NOT_CREATED = "0001-"
"""How the time begins at which a stream was created whose store is not open yet."""
CREATION_POLL_S = 0.005

DELETED = ("DEL", "PURGE")
OPERATION = "KV-Operation"
EXPECT = "Nats-Expected-Last-Subject-Sequence"


class ApiError(msgspec.Struct, frozen=True):
    """An error as JetStream reports it."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class State(msgspec.Struct, frozen=True):
    """Part of a stream's state."""

    first_seq: int = 0
    last_seq: int = 0
    messages: int = 0
    consumer_count: int = 0


class StreamInfo(msgspec.Struct, frozen=True):
    """Part of the answer to STREAM.INFO and STREAM.CREATE."""

    created: str = ""
    """When it was made, which tells an emptied store from the old one."""
    state: State = State()
    error: ApiError | None = None


class _Stored(msgspec.Struct, frozen=True):
    subject: str = ""
    seq: int = 0
    hdrs: bytes = b""
    data: bytes = b""


class _MessageReply(msgspec.Struct, frozen=True):
    message: _Stored | None = None
    error: ApiError | None = None


class _Delivered(msgspec.Struct, frozen=True):
    consumer_seq: int = 0


class ConsumerInfo(msgspec.Struct, frozen=True):
    """Part of the answer to CONSUMER.CREATE and CONSUMER.INFO."""

    name: str = ""
    num_pending: int = 0
    delivered: _Delivered = _Delivered()
    error: ApiError | None = None


class Ack(msgspec.Struct, frozen=True):
    """The answer to a stored message."""

    seq: int = 0
    error: ApiError | None = None


class _Done(msgspec.Struct, frozen=True):
    error: ApiError | None = None


async def info(link: Link, bucket: str) -> StreamInfo:
    """The stream behind *bucket*, as soon as all of it is made.  Raises: BucketMissing, BusError."""
    while True:
        about = await call(link, f"STREAM.INFO.{stream_name(bucket)}", b"", StreamInfo, bucket)
        if not about.created.startswith(NOT_CREATED):
            link.whole_streams.add(bucket)
            return about
        await asyncio.sleep(CREATION_POLL_S)


async def _whole(link: Link, bucket: str) -> None:
    """Return when the store of *bucket* is open, which is asked once for each connection.

    nats-server 2.9 knows a stream by name before its store is open, and dies of a nil pointer when a
    message of it is asked for at that moment.  Raises: BucketMissing, BusError.
    """
    if bucket not in link.whole_streams:
        await info(link, bucket)


async def ensure(link: Link, bucket: Bucket[Any]) -> StreamInfo:
    """The stream behind *bucket*, made if absent; several may do so at once."""
    try:
        return await info(link, bucket.name)
    except BucketMissing:
        name = stream_name(bucket.name)
        config = {
            "name": name,
            "subjects": [subject_of(bucket.name, ">")],
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "num_replicas": link.replicas,
            "max_consumers": -1,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_age": 0,
            "max_msg_size": MAX_MESSAGE_BYTES,
            "max_msgs_per_subject": bucket.history,
            "duplicate_window": 120_000_000_000,
            "deny_delete": False,
            "allow_rollup_hdrs": True,
        }
        body = msgspec.json.encode(config)
        try:
            return await call(link, f"STREAM.CREATE.{name}", body, StreamInfo, bucket.name)
        except BusRefused as error:
            if error.code != NAME_IN_USE:
                raise
            return await info(link, bucket.name)


async def raise_sequence(link: Link, bucket: str, first: int) -> None:
    """Make *first* the next revision of an empty bucket, so that revisions never go back.

    JetStream 2.9 has no ``first_seq`` setting, but purging up to a sequence moves it.
    """
    body = msgspec.json.encode({"seq": first})
    await call(link, f"STREAM.PURGE.{stream_name(bucket)}", body, _Done, bucket)


async def forget_key(link: Link, bucket: str, key: str) -> None:
    """Remove every message of *key*, oldest first: what is left of a key that was deleted long ago.

    Not by STREAM.PURGE: nats-server 2.9.10 moves the consumers of other keys when a purge has a
    filter, and their readers miss messages without a gap in the numbers.
    """
    await _whole(link, bucket)
    name, seq = stream_name(bucket), 1
    while True:
        body = msgspec.json.encode({"seq": seq, "next_by_subj": subject_of(bucket, key)})
        try:
            reply = await call(link, f"STREAM.MSG.GET.{name}", body, _MessageReply, bucket)
        except BusRefused as error:
            if error.code == MESSAGE_MISSING:
                return
            raise
        if reply.message is None:
            return
        seq = reply.message.seq
        body = msgspec.json.encode({"seq": seq, "no_erase": True})
        await call(link, f"STREAM.MSG.DELETE.{name}", body, _Done, bucket)


async def last(link: Link, bucket: str, pattern: str) -> Raw | None:
    """The last message whose key matches *pattern*; None if there is none.

    Raises: BucketMissing, BusError.
    """
    stored = await _stored(link, bucket, {"last_by_subj": subject_of(bucket, pattern)})
    if stored is None:
        return None
    deleted = any(f"{OPERATION}: {word}".encode() in stored.hdrs for word in DELETED)
    return Raw(stored.subject[len(subject_of(bucket, "")) :], None if deleted else stored.data, stored.seq)


async def following(link: Link, bucket: str, pattern: str, start: int) -> int:
    """Sequence of the first message from *start* on whose key matches *pattern*; 0 if there is none.

    From near the end that is no work for the store, unlike :func:`last`, where thousands of keys match, or
    one of thousands.  Raises: BucketMissing, BusError.
    """
    stored = await _stored(link, bucket, {"seq": start, "next_by_subj": subject_of(bucket, pattern)})
    return stored.seq if stored is not None else 0


async def _stored(link: Link, bucket: str, request: dict[str, Any]) -> _Stored | None:
    await _whole(link, bucket)
    body = msgspec.json.encode(request)
    try:
        reply = await call(link, f"STREAM.MSG.GET.{stream_name(bucket)}", body, _MessageReply, bucket)
    except BusRefused as error:
        if error.code == MESSAGE_MISSING:
            return None
        raise
    return reply.message


async def consume(link: Link, bucket: str, name: str, config: dict[str, Any]) -> ConsumerInfo:
    """Make consumer *name*.  Raises: BucketMissing, BusError."""
    await _whole(link, bucket)
    stream = stream_name(bucket)
    body = msgspec.json.encode({"stream_name": stream, "config": {**config, "name": name}})
    subject = f"CONSUMER.CREATE.{stream}.{name}.{config['filter_subject']}"
    return await call(link, subject, body, ConsumerInfo, bucket)


async def drop_consumer(link: Link, bucket: str, name: str) -> None:
    """Remove consumer *name*; it may be gone already."""
    await call(link, f"CONSUMER.DELETE.{stream_name(bucket)}.{name}", b"", _Done, bucket)


async def call(link: Link, verb: str, body: bytes, kind: type[R], bucket: str) -> R:
    """Ask JetStream for *verb*, about stream *bucket*; what it says.  Raises: BucketMissing, BusError."""
    # All of these may be asked twice, so a lost connection is no reason to give up.
    deadline = asyncio.get_running_loop().time() + API_S
    while True:
        left = deadline - asyncio.get_running_loop().time()
        try:
            message = await link.ask(f"$JS.API.{verb}", body, timeout_s=max(left, 0.001))
            break
        except BusUnavailable:
            if left <= 0:
                raise
        except ServiceAway:
            raise BusRefused(verb, 503, "JetStream is not ready") from None
    try:
        reply = msgspec.json.decode(message.data, type=kind)
    except msgspec.MsgspecError as error:
        raise BusRefused(verb, 500, f"unreadable answer: {error}") from error
    problem: ApiError | None = getattr(reply, "error", None)
    if problem is not None:
        if problem.err_code == STREAM_MISSING:
            link.whole_streams.discard(bucket)
            raise BucketMissing(bucket)
        raise BusRefused(verb, problem.err_code or problem.code, problem.description)
    return reply


def raw_of(bucket: str, message: Message, revision: int) -> Raw:
    """*message* of a bucket's stream, as key, bytes and revision."""
    headers = message.headers
    deleted = bool(headers) and headers is not None and headers.get(OPERATION) in DELETED
    return Raw(message.subject[len(bucket) + 5 :], None if deleted else message.data, revision)


def ack_of(what: str, message: Message) -> Ack:
    """What the server says about a message it was asked to store.

    Raises: BusRefused if it is no acknowledgement at all.
    """
    if status_of(message):
        return Ack(error=ApiError(code=503, description="no stream takes this subject"))
    try:
        return msgspec.json.decode(message.data, type=Ack)
    except msgspec.MsgspecError as error:
        raise BusRefused(what, 500, f"unreadable answer: {error}") from error
