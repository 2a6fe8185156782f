"""How received datagrams lie in memory that may outlive the process: headers, vectors, addresses, data.

The kernel writes there by itself (recvmmsg(2)), so that none is between it and the note of it.  A slot whose
length is not 0 holds a question that was not done.
"""

from __future__ import annotations

import mmap
import struct

HEADER, VECTOR, NAME, CONTROL = 64, 16, 32, 64
"""Bytes that a slot has: struct mmsghdr, struct iovec, for an address, for a control message."""
_CMSG = 16
"""struct cmsghdr, in front of its data."""
_TRUNCATED = 0x20
_HEAD = struct.Struct("=8xI28xQI4xI")
"""Of struct mmsghdr: bytes of the address, of control messages, flags, bytes received."""

Question = tuple[bytes, bytes, bytes]
"""(data, from, to)."""


def needed(count: int, size: int) -> int:
    """Bytes that *count* slots for *size* bytes take."""
    return count * (HEADER + VECTOR + NAME + CONTROL + size)


def left(memory: mmap.mmap, count: int, size: int) -> list[Question]:
    """The questions that are not done in what another process has left."""
    found = []
    names = count * (HEADER + VECTOR)
    controls = names + count * NAME
    data = controls + count * CONTROL
    for slot in range(count):
        length, control, flags, got = _HEAD.unpack_from(memory, slot * HEADER)
        if not got or flags & _TRUNCATED or control < _CMSG + length or got > size or length > NAME:
            continue
        name, to = names + slot * NAME, controls + slot * CONTROL + _CMSG
        at = data + slot * size
        found.append((memory[at : at + got], memory[name : name + length], memory[to : to + length]))
    return found
