"""How batches of runtime events look on their stream: MessagePack, compressed where that pays."""

from __future__ import annotations

import struct
import zlib

import msgspec
from msgspec.structs import replace

from cirri.history.packing import Unreadable, pack, unpack
from cirri.model.runtimeevents import RuntimeBatch

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(RuntimeBatch)


def encode(batch: RuntimeBatch) -> bytes:
    """Bytes of *batch*."""
    return pack(_encoder.encode(batch))


def decode(data: bytes) -> RuntimeBatch:
    """What :func:`encode` made, with all events one by one.  Raises: Unreadable."""
    try:
        return spread(_decoder.decode(unpack(data)))
    except (msgspec.MsgspecError, zlib.error, struct.error, IndexError, RecursionError) as error:
        raise Unreadable("runtime events", str(error) or type(error).__name__) from None


def spread(batch: RuntimeBatch) -> RuntimeBatch:
    """*batch* with each of its events by itself.  Raises: struct.error, IndexError (no such columns)."""
    if not batch.times:
        return batch
    count = len(batch.times) // 8
    which, times = struct.unpack(f"<{count}I", batch.which), struct.unpack(f"<{count}Q", batch.times)
    events = batch.events
    spread_out = tuple(replace(events[at], time=when) for at, when in zip(which, times, strict=True))
    return replace(batch, events=spread_out, which=b"", times=b"")
