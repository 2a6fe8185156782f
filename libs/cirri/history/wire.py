"""How batches look on the stream: MessagePack, the rows column by column, compressed where that pays."""

from __future__ import annotations

import zlib

import msgspec
import numpy as np
from msgspec.structs import replace

from cirri.errors import CirriError
from cirri.history.rows import ROW
from cirri.model.flows import FlowBatch

PACK_BYTES = 512
"""Shorter messages are sent as they are."""
MANY_BYTES = 256 * ROW.itemsize
UNPACKED_BYTES = 64 << 20
"""What a message may take when it is read."""
_ZLIB = b"\x78"
"""First byte of what zlib writes; a batch in MessagePack begins with that of a map."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(FlowBatch)


class Unreadable(CirriError):
    """A message of the stream is no batch of flows, because *why*."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"a message of the stream of flows cannot be read: {why}")


def encode(batch: FlowBatch) -> bytes:
    """Bytes of *batch*: some 10 for a row of many like it."""
    data = _encoder.encode(replace(batch, rows=_turned(batch.rows, (-1, ROW.itemsize))))
    if len(data) < PACK_BYTES:
        return data
    # Columns of many rows are runs of like bytes; what else there is repeats itself in other ways.
    runs = len(batch.rows) >= MANY_BYTES
    packer = zlib.compressobj(1, zlib.DEFLATED, strategy=zlib.Z_RLE if runs else zlib.Z_DEFAULT_STRATEGY)
    return packer.compress(data) + packer.flush()


def decode(data: bytes) -> FlowBatch:
    """What :func:`encode` made.  Raises: Unreadable."""
    try:
        if data.startswith(_ZLIB):
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(data, UNPACKED_BYTES)
            if not unpacker.eof:
                raise Unreadable(f"it is cut short, or takes more than {UNPACKED_BYTES} bytes")
        batch = _decoder.decode(data)
        return replace(batch, rows=_turned(batch.rows, (ROW.itemsize, -1)))
    except (msgspec.MsgspecError, zlib.error, ValueError, RecursionError) as error:
        raise Unreadable(str(error) or type(error).__name__) from None


def _turned(rows: bytes, shape: tuple[int, int]) -> bytes:
    """Columns of bytes for rows, or back: like stands beside like, which is what compressors want."""
    return np.frombuffer(rows, np.uint8).reshape(shape).T.tobytes() if rows else b""
