"""How batches look on the stream: MessagePack, the rows column by column, compressed where that pays."""

from __future__ import annotations

import zlib

import msgspec
import numpy as np
from msgspec.structs import replace

from cirri.history.packing import Unreadable, pack, unpack
from cirri.history.rows import ROW
from cirri.model.flows import FlowBatch

MANY_BYTES = 256 * ROW.itemsize

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(FlowBatch)


def encode(batch: FlowBatch) -> bytes:
    """Bytes of *batch*: some 10 for a row of many like it."""
    data = _encoder.encode(replace(batch, rows=_turned(batch.rows, (-1, ROW.itemsize))))
    # Columns of many rows are runs of like bytes; what else there is repeats itself in other ways.
    runs = len(batch.rows) >= MANY_BYTES
    return pack(data, zlib.Z_RLE if runs else zlib.Z_DEFAULT_STRATEGY)


def decode(data: bytes) -> FlowBatch:
    """What :func:`encode` made.  Raises: Unreadable."""
    try:
        batch = _decoder.decode(unpack(data))
        return replace(batch, rows=_turned(batch.rows, (ROW.itemsize, -1)))
    except (msgspec.MsgspecError, zlib.error, ValueError, RecursionError) as error:
        raise Unreadable("flows", str(error) or type(error).__name__) from None


def _turned(rows: bytes, shape: tuple[int, int]) -> bytes:
    """Columns of bytes for rows, or back: like stands beside like, which is what compressors want."""
    return np.frombuffer(rows, np.uint8).reshape(shape).T.tobytes() if rows else b""
