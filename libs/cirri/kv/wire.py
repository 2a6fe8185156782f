"""How a bucket's values look on the wire: subjects, keys, MessagePack, completeness markers.

Pure: nothing here talks to a server.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple, TypeVar

import msgspec

from cirri.kv.errors import KeyInvalid, ValueTooLarge
from cirri.model.bucket import KEY, Bucket

T = TypeVar("T")

MAX_KEY_BYTES = 512
"""Well below the 4096 bytes of a NATS control line, which also holds the reply subject."""

MAX_MESSAGE_BYTES = 8 << 20
"""The max_payload that our servers are given: a folder of manifests is one request."""

MAX_VALUE_BYTES = (1 << 20) - 1024
"""A value and the headers of a compare-and-set fit into any server's messages, whose default is
1 MiB; a value beyond that would make every reader of its bucket slow."""

PACKED_BYTES = 64 << 10
"""Values of packed buckets are compressed from this size on."""

UNPACKED_BYTES = 16 << 20
"""What a packed value may take when it is read."""

MARKER = "_complete"
"""Last token of the reserved key that says: all of the owner's state is in."""


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """Value of the completeness marker of a bucket or shard."""

    complete: bool = True
    """False while the owner rewrites state that the store has lost."""
    era: int = 0
    """Grows with every marker of the owner (milliseconds of its wall clock, pushed up where that
    went back), so that a marker from a store restored to the past is recognised."""


class Raw(NamedTuple):
    """One message of a bucket's stream."""

    key: str
    data: bytes | None
    """None: the key was deleted."""
    revision: int


class Bad(NamedTuple):
    """A value that cannot be read, because *why*."""

    why: str


_ZLIB = b"\x78"
"""First byte of what zlib writes; MessagePack of a value begins with that of a map."""

_encoder = msgspec.msgpack.Encoder()
_marker = msgspec.msgpack.Decoder(Marker)


_decoders: dict[type[Any], msgspec.msgpack.Decoder[Any]] = {}


def _decoder(kind: type[Any]) -> msgspec.msgpack.Decoder[Any]:
    if kind not in _decoders:
        _decoders[kind] = msgspec.msgpack.Decoder(kind)
    return _decoders[kind]


def stream_name(bucket: str) -> str:
    """JetStream's name of the stream behind *bucket*."""
    return f"KV_{bucket}"


def subject_of(bucket: str, key: str) -> str:
    """Subject of *key* (or pattern) of *bucket*."""
    return f"$KV.{bucket}.{key}"


def check_key(bucket: Bucket[Any], key: str) -> str:
    """*key*, if it can be one of *bucket*; the marker's key is reserved.

    Raises: KeyInvalid.
    """
    if not KEY.fullmatch(key):
        raise KeyInvalid(bucket.name, key, "keys are made of -/_=.A-Za-z0-9")
    if len(key) > MAX_KEY_BYTES:
        raise KeyInvalid(bucket.name, key, f"it has {len(key)} bytes, {MAX_KEY_BYTES} are allowed")
    if key.startswith(".") or key.endswith(".") or ".." in key:
        raise KeyInvalid(bucket.name, key, "a token is empty")
    if is_marker(key):
        raise KeyInvalid(bucket.name, key, f"the last token {MARKER} is reserved")
    return key


def check_pattern(bucket: Bucket[Any], pattern: str) -> str:
    """*pattern*, if it is a key with ``*`` for tokens or ``>`` at its end.

    Raises: KeyInvalid.
    """
    parts = pattern.split(".")
    for place, part in enumerate(parts):
        wild = part == "*" or (part == ">" and place == len(parts) - 1)
        if not wild and not KEY.fullmatch(part):
            raise KeyInvalid(bucket.name, pattern, "a pattern is a key with * for tokens or > at its end")
    return pattern


def encode(bucket: Bucket[T], value: T) -> tuple[str, bytes]:
    """Key and bytes of *value*.

    Raises: KeyInvalid, ValueTooLarge.
    """
    key = check_key(bucket, bucket.key(value))
    data = _encoder.encode(value)
    if bucket.packed and len(data) > PACKED_BYTES:
        if len(data) > UNPACKED_BYTES:
            raise ValueTooLarge(bucket.name, key, len(data), UNPACKED_BYTES)
        data = zlib.compress(data, level=1)
    if len(data) > MAX_VALUE_BYTES:
        raise ValueTooLarge(bucket.name, key, len(data), MAX_VALUE_BYTES)
    return key, data


def decode(bucket: Bucket[T], key: str, data: bytes) -> T | Bad:
    """The value that *data* holds, if it is one and belongs under *key*."""
    try:
        kind: type[Any] = bucket.type
        value: T = _decoder(kind).decode(_unpacked(data) if bucket.packed else data)
        proper = bucket.key(value)
    except (msgspec.MsgspecError, zlib.error, ValueError, TypeError, RecursionError, AttributeError) as error:
        return Bad(str(error) or type(error).__name__)
    if proper != key:
        return Bad(f"its key should be {proper}")
    return value


def _unpacked(data: bytes) -> bytes:
    """What :func:`encode` packed.  Raises: zlib.error, ValueError."""
    if not data.startswith(_ZLIB):
        return data
    unpacker = zlib.decompressobj()
    plain = unpacker.decompress(data, UNPACKED_BYTES)
    if not unpacker.eof:
        raise ValueError(f"it is cut short, or takes more than {UNPACKED_BYTES} bytes when it is unpacked")
    return plain


def encode_marker(*, complete: bool, era: int) -> bytes:
    """Bytes of a marker."""
    return _encoder.encode(Marker(complete=complete, era=era))


def decode_marker(data: bytes | None) -> Marker:
    """The marker that *data* holds; garbage and deletions say that nothing is complete."""
    if data is not None:
        try:
            return _marker.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
    return Marker(complete=False)


def is_marker(key: str) -> bool:
    """Whether *key* is some shard's marker."""
    return key == MARKER or key.endswith("." + MARKER)


def marker_key(shard: str) -> str:
    """Key of the marker of *shard* ("" for a bucket with one writer)."""
    return f"{shard}.{MARKER}" if shard else MARKER


def shard_of(bucket: Bucket[Any], key: str) -> str:
    """The shard that *key* belongs to; "" in a bucket with one writer."""
    return key.split(".", 1)[0] if bucket.shard else ""


def in_shard(key: str, shard: str) -> bool:
    """Whether *key* belongs to *shard*; every key belongs to ""."""
    return not shard or key == shard or key.startswith(shard + ".")


def matches(pattern: str, key: str) -> bool:
    """Whether *key* matches *pattern*, as NATS subjects do."""
    wanted, have = pattern.split("."), key.split(".")
    for place, part in enumerate(wanted):
        if part == ">":
            return len(have) > place
        if place >= len(have) or (part not in ("*", have[place])):
            return False
    return len(wanted) == len(have)
