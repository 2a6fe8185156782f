"""How batches of runtime events look on their stream: MessagePack, compressed where that pays."""

from __future__ import annotations

import zlib

import msgspec

from cirri.errors import CirriError
from cirri.model.runtimeevents import RuntimeBatch

PACK_BYTES = 512
"""Shorter messages are sent as they are."""
UNPACKED_BYTES = 64 << 20
"""What a message may take when it is read."""
_ZLIB = b"\x78"
"""First byte of what zlib writes; a batch in MessagePack begins with that of a map."""
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(RuntimeBatch)


class UnreadableEvents(CirriError):
    """A message of the stream is no batch of runtime events, because *why*."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"a message of the stream of runtime events cannot be read: {why}")


def encode(batch: RuntimeBatch) -> bytes:
    """Bytes of *batch*."""
    data = _encoder.encode(batch)
    return data if len(data) < PACK_BYTES else zlib.compress(data, 1)


def decode(data: bytes) -> RuntimeBatch:
    """What :func:`encode` made.  Raises: UnreadableEvents."""
    try:
        if data.startswith(_ZLIB):
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(data, UNPACKED_BYTES)
            if not unpacker.eof:
                raise UnreadableEvents(f"it is cut short, or takes more than {UNPACKED_BYTES} bytes")
        return _decoder.decode(data)
    except (msgspec.MsgspecError, zlib.error, RecursionError) as error:
        raise UnreadableEvents(str(error) or type(error).__name__) from None
