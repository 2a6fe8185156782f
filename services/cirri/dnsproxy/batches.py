"""Many datagrams by one system call: recvmmsg(2) and sendmmsg(2) on memory that is laid out once.

The memory of what was received may be a file's: then what a killed process had taken is still there.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

NAME, CONTROL, HEADER, VECTOR = 32, 64, 64, 16
"""Bytes that each message has for an address, a control message, its struct mmsghdr and its struct iovec."""
_MMSGHDR = struct.Struct("=QI4xQQQQi4xI4x")
_CMSG = 16
"""struct cmsghdr, in front of its data."""
_DONTWAIT, _TRUNCATED = 0x40, 0x20


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


class _Batch:
    """Slots of *size* bytes with their addresses and headers, in one piece of memory."""

    def __init__(self, count: int, size: int, memory: mmap.mmap | None = None, *, fresh: bool = True) -> None:
        """*memory*: if it has to be somewhere; not *fresh*: as another process left it, to be read."""
        self.count, self.size = count, size
        self.memory = memory or mmap.mmap(-1, self.needed(count, size))
        self._names = count * (HEADER + VECTOR)
        self._controls = self._names + count * NAME
        self._data = self._controls + count * CONTROL
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self._base = base
        heads = self._names
        for slot in range(count if fresh else 0):
            vector = count * HEADER + slot * VECTOR
            struct.pack_into("=QQ", self.memory, vector, base + self._data + slot * size, size)
            _MMSGHDR.pack_into(
                self.memory, slot * HEADER, base + self._names + slot * NAME, NAME, base + vector, 1,
                base + self._controls + slot * CONTROL, CONTROL, 0, 0,
            )  # fmt: skip
        self._template = self.memory[: count * HEADER]
        self._words = memoryview(self.memory)[:heads].cast("I")

    @staticmethod
    def needed(count: int, size: int) -> int:
        """Bytes of memory."""
        return count * (HEADER + VECTOR + NAME + CONTROL + size)


class Inbox(_Batch):
    """Receives."""

    def __init__(self, count: int, size: int, memory: mmap.mmap | None = None, *, fresh: bool = True) -> None:
        super().__init__(count, size, memory, fresh=fresh)
        self._receive = _libc().recvmmsg
        self._receive.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]

    def receive(self, fd: int) -> list[bytes]:
        """What a connected socket has."""
        memory, words, size, data = self.memory, self._words, self.size, self._data
        found = []
        for slot in range(self._take(fd, 0, self.count)):
            at = data + slot * size
            found.append(memory[at : at + words[slot * 16 + 14]])
        return found

    def receive_from(self, fd: int, first: int, count: int) -> list[tuple[bytes, bytes, bytes]]:
        """(data, from, to): what a socket with original destinations has, into *count* slots from *first* on.

        Addresses are as the kernel writes them: struct sockaddr_in or sockaddr_in6.
        """
        return [self._at(slot) for slot in range(first, first + self._take(fd, first, count))]

    def done(self, slot: int) -> None:
        """What *slot* held needs nobody any more."""
        self._words[slot * 16 + 14] = 0

    def left(self) -> list[tuple[bytes, bytes, bytes]]:
        """Every slot that was never done, as :meth:`receive_from` gave it or would have."""
        found = []
        for slot in range(self.count):
            if self._words[slot * 16 + 14]:
                found.append(self._at(slot))
                self.done(slot)
        return found

    def _at(self, slot: int) -> tuple[bytes, bytes, bytes]:
        memory, words, word = self.memory, self._words, slot * 16
        at, name = self._data + slot * self.size, self._names + slot * NAME
        control = self._controls + slot * CONTROL + _CMSG
        length = words[word + 2]
        known = words[word + 10] >= _CMSG + length
        whole = not words[word + 12] & _TRUNCATED
        return (
            memory[at : at + words[word + 14]] if whole else b"",
            memory[name : name + length],
            memory[control : control + length] if known else b"",
        )

    def _take(self, fd: int, first: int, count: int) -> int:
        start, end = first * HEADER, (first + count) * HEADER
        self.memory[start:end] = self._template[start:end]  # the kernel writes lengths over what it was given
        got: int = self._receive(fd, self._base + start, count, _DONTWAIT, None)
        return max(got, 0)


class Outbox(_Batch):
    """Sends."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__(count, size)
        self._lengths = memoryview(self.memory)[: count * (HEADER + VECTOR)].cast("Q")
        self._send = _libc().sendmmsg
        self._send.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
        for slot in range(count):
            self._words[slot * 16 + 10] = 0  # no control messages

    def send(self, fd: int, messages: Sequence[tuple[bytes, bytes]]) -> int:
        """Send (to, data), *to* being empty on connected sockets; how many could not be sent."""
        failed = 0
        for start in range(0, len(messages), self.count):
            failed += self._send_some(fd, messages[start : start + self.count])
        return failed

    def _send_some(self, fd: int, messages: Sequence[tuple[bytes, bytes]]) -> int:
        memory, words, lengths, size, data = self.memory, self._words, self._lengths, self.size, self._data
        vectors, names = self.count * HEADER // 8 + 1, self._names
        for slot, (to, message) in enumerate(messages):
            length, at = len(message), data + slot * size
            memory[at : at + length] = message
            lengths[vectors + slot * 2] = length
            words[slot * 16 + 2] = len(to)
            if to:
                at = names + slot * NAME
                memory[at : at + len(to)] = to
        done = failed = 0
        while done < len(messages):
            sent = self._send(fd, self._base + done * HEADER, len(messages) - done, _DONTWAIT)
            if sent > 0:
                done += sent
            elif ctypes.get_errno() in (errno.EAGAIN, errno.ENOBUFS):
                return failed + len(messages) - done
            else:  # of this one: a connected socket also says here that an earlier one was not welcome
                failed += 1
                done += 1
        return failed
