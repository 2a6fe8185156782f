"""How batches of runtime events look on their stream: MessagePack, compressed where that pays."""

from __future__ import annotations

import zlib

import msgspec

from cirri.history.packing import Unreadable, pack, unpack
from cirri.model.runtimeevents import RuntimeBatch

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(RuntimeBatch)


def encode(batch: RuntimeBatch) -> bytes:
    """Bytes of *batch*."""
    return pack(_encoder.encode(batch))


def decode(data: bytes) -> RuntimeBatch:
    """What :func:`encode` made.  Raises: Unreadable."""
    try:
        return _decoder.decode(unpack(data))
    except (msgspec.MsgspecError, zlib.error, RecursionError) as error:
        raise Unreadable("runtime events", str(error) or type(error).__name__) from None
