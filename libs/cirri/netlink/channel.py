"""A netlink socket that sends a batch in one system call and collects the acknowledgements."""

from __future__ import annotations

import fcntl
import itertools
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from cirri.netlink.errors import NetlinkRefused

HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port (linux/netlink.h)."""
NLMSG_ERROR, NLMSG_DONE = 2, 3
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK = 270, 10, 12
SIOCGIFINDEX, IFNAMSIZ = 0x8933, 16
RECEIVE_BYTES = 1 << 18
BATCH_BYTES, BATCH_REQUESTS = 64 << 10, 128
"""Largest batch: one ``sendto`` takes it whole, and its acknowledgements (each charged about 800
bytes of the default receive buffer of 208 KiB) fit before the first is read."""


@dataclass(frozen=True, slots=True)
class Request:
    """One message, and how to speak about it."""

    payload: bytes
    """Header included; sequence and port are filled in by :class:`Channel`."""
    what: str
    """Completes "the kernel refused to ..."."""
    ignore: frozenset[int] = frozenset()
    """errno values that mean the wish is fulfilled already."""


class Channel:
    """A netlink socket of the namespace in which it was opened.  Blocking; one user at a time."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        self._socket.bind((0, 0))
        self._sequence = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def index(self, name: str) -> int:
        """Index of the device *name*; 0 if there is none."""
        request = struct.pack("16si20x", name.encode(), 0)
        try:
            answer = fcntl.ioctl(self._socket, SIOCGIFINDEX, request)
        except OSError:
            return 0
        (found,) = struct.unpack_from("=i", answer, IFNAMSIZ)
        return int(found)

    def apply(self, requests: Iterable[Request]) -> None:
        """Have the kernel carry out *requests* in order.

        All of a batch are tried, also those after one that failed.

        Raises:
            NetlinkRefused: about the first request that failed.
        """
        failure: NetlinkRefused | None = None
        for batch in _batches(requests):
            failure = self._exchange(batch) or failure
        if failure is not None:
            raise failure

    def dump(self, request: bytes) -> Iterator[bytes]:
        """The messages of the answer to the dump *request*, headers included."""
        sequence = next(self._sequence)
        self._socket.send(_stamp(request, sequence))
        while True:
            for kind, number, message in _split(self._socket.recv(RECEIVE_BYTES)):
                if number != sequence:
                    continue
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    if code := _errno(message):
                        raise NetlinkRefused("list what is there", code)
                    return
                yield message

    def _exchange(self, batch: Sequence[Request]) -> NetlinkRefused | None:
        waiting = {next(self._sequence): request for request in batch}
        failures: dict[int, NetlinkRefused] = {}
        self._socket.send(b"".join(_stamp(request.payload, number) for number, request in waiting.items()))
        while waiting:
            for kind, number, message in _split(self._socket.recv(RECEIVE_BYTES)):
                if kind != NLMSG_ERROR or (request := waiting.pop(number, None)) is None:
                    continue
                code = _errno(message)
                if code and code not in request.ignore:
                    failures[number] = NetlinkRefused(request.what, code)
        return failures[min(failures)] if failures else None


def _batches(requests: Iterable[Request]) -> Iterator[list[Request]]:
    batch: list[Request] = []
    size = 0
    for request in requests:
        if len(batch) == BATCH_REQUESTS or (batch and size + len(request.payload) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(request)
        size += len(request.payload)
    if batch:
        yield batch


def _stamp(payload: bytes, sequence: int) -> bytes:
    """*payload* with its sequence number, padded to 4 bytes as the next message requires."""
    length, kind, flags, _, _ = HEADER.unpack_from(payload)
    head = HEADER.pack(length, kind, flags, sequence, 0)
    return head + payload[HEADER.size :] + bytes(-len(payload) % 4)


def _split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Each message of a datagram: (type, sequence, message with header)."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, _, sequence, _ = HEADER.unpack_from(data, offset)
        yield kind, sequence, data[offset : offset + length]
        offset += (length + 3) & ~3


def _errno(message: bytes) -> int:
    (code,) = struct.unpack_from("=i", message, HEADER.size)
    return -int(code)
