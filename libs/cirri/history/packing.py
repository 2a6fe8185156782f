"""What messages of both streams share: the most that one may take, and how a compressed one is told."""

from __future__ import annotations

import zlib

from cirri.errors import CirriError

PACK_BYTES = 512
"""Shorter messages are sent as they are."""
UNPACKED_BYTES = 64 << 20
"""What a message may take when it is read."""
_ZLIB = b"\x78"
"""First byte of what zlib writes; a batch in MessagePack begins with that of a map."""


class Unreadable(CirriError):
    """A message of the stream of *what* is no batch of them, because *why*."""

    def __init__(self, what: str, why: str) -> None:
        self.why = why
        super().__init__(f"a message of the stream of {what} cannot be read: {why}")


def pack(data: bytes, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """*data*, compressed where that pays.  *strategy*: zlib's."""
    if len(data) < PACK_BYTES:
        return data
    packer = zlib.compressobj(1, zlib.DEFLATED, strategy=strategy)
    return packer.compress(data) + packer.flush()


def unpack(data: bytes) -> bytes:
    """What :func:`pack` was given.  Raises: zlib.error."""
    if not data.startswith(_ZLIB):
        return data
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(data, UNPACKED_BYTES)
    if not unpacker.eof:
        raise zlib.error(f"it is cut short, or takes more than {UNPACKED_BYTES} bytes")
    return data
