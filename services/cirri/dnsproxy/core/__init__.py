"""The compiled edge over UDP (``core.h``): repeats decisions in a thread of its own, tells what to decide.

Addresses are as the kernel writes them (struct sockaddr_in, sockaddr_in6), names as on the wire in lower
case.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cirri.dnsproxy.counts import Counts
from cirri.dnsproxy.facts import Pairs
from cirri.errors import CirriError

_LIBRARY = Path(__file__).parent / "build" / "core.so"
_EVENT = struct.Struct("=IIQIIIIIIIIqddq")
_ROOM = 1 << 20
"""Bytes of events that are taken at once; the largest one has 70,000."""
_COUNTED = (
    "queries", "answers", "malformed", "strangers", "spoofed", "retries", "timeouts", "crowded", "unsent",
)  # fmt: skip
"""As enum counts has them; what follows is records that there was no room for."""
_POD = struct.Struct("=III16s")
_PAIR = struct.Struct("=16sq")
_ADDRESS = struct.Struct("=16sI")
_MOST_ADDRESSES = 64


class NotBuilt(CirriError):
    """The compiled part is missing."""

    hint = "Compile it: make build"

    def __init__(self) -> None:
        super().__init__(f"{_LIBRARY.name} has not been compiled")


class Kind(IntEnum):
    """What an event is about; enum kinds."""

    QUESTION = 0
    """To be decided: :meth:`Core.ask` or :meth:`Core.reply`."""
    ANSWER = 1
    """To be believed or not; if so, :meth:`Core.believed` and then :meth:`Core.reply`."""
    AGING = 2
    """Given to the pod; its addresses are facts, but not for as long as it says: :meth:`Core.know`."""
    CANNOT = 3
    """Nobody can speak as the server; ``number`` is an errno."""
    PASSED = 4
    """The others are for records: a question was passed to its server."""
    ANSWERED = 5
    FAILED = 6
    """No answer came."""


class Event(NamedTuple):
    """About one question."""

    kind: Kind
    id: int
    pod: int
    subject: int
    identity: int
    """Of the server."""
    number: int
    """The rule that lets it pass."""
    began: float
    now: float
    """Monotonic: when the question came, and this event."""
    time_ns: int
    """This event, since 1970."""
    client: bytes
    server: bytes
    query: bytes
    answer: bytes


@cache
def library() -> Any:
    """The compiled part.  Raises: NotBuilt."""
    if not _LIBRARY.exists():
        raise NotBuilt
    found = ctypes.CDLL(str(_LIBRARY))
    pointer, u32, u64 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64
    integer, text, real = ctypes.c_int, ctypes.c_char_p, ctypes.c_double
    calls = {
        "dns_make": (pointer, (pointer, pointer, u32, u32)),
        "dns_free": (None, (pointer,)),
        "dns_events": (integer, (pointer,)),
        "dns_run": (None, (pointer,)),
        "dns_stop": (None, (pointer,)),
        "dns_listen": (integer, (pointer, integer, integer)),
        "dns_deaf": (None, (pointer,)),
        "dns_lease": (None, (pointer, real, u32)),
        "dns_counts": (u32, (pointer, pointer)),
        "dns_take": (u32, (pointer, integer, pointer, u32)),
        "dns_pods": (None, (pointer, text, u32)),
        "dns_clear": (None, (pointer,)),
        "dns_route": (None, (pointer, u32, text, u32, u32, u32)),
        "dns_ask": (None, (pointer, u64, u32, u32, ctypes.c_int64)),
        "dns_flush": (None, (pointer,)),
        "dns_believed": (integer, (pointer, u64)),
        "dns_reply": (None, (pointer, u64, text, u32)),
        "dns_know": (None, (pointer, u32, text, u32, text, u32)),
        "dns_forget": (None, (pointer, u32, text, u32)),
        "dns_put": (None, (pointer, text, u32, text, text, u32)),
        "dns_read": (integer, (text, u32, pointer)),
        "dns_query": (u32, (text, u32)),
    }
    for name, (result, arguments) in calls.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    return found


def read_addresses(message: bytes) -> tuple[tuple[bytes, int], ...] | None:
    """The addresses that :func:`message.read_answer` finds, too; None: it is left to that."""
    room = ctypes.create_string_buffer(20 * _MOST_ADDRESSES)
    count = library().dns_read(message, len(message), room)
    return None if count < 0 else tuple(_ADDRESS.iter_unpack(room.raw[: 20 * count]))


def query_end(message: bytes) -> int:
    """As :func:`message.check_query`; 0: where that raises."""
    end: int = library().dns_query(message, len(message))
    return end


class Core:
    """One edge; its thread runs from the start until :meth:`close`."""

    def __init__(self, memories: Mapping[socket.AddressFamily, mmap.mmap], count: int, size: int) -> None:
        """*memories*: where datagrams are received, see :mod:`cirri.dnsproxy.slots`."""
        self._library = library()
        self._memories = [memories[family] for family in (socket.AF_INET, socket.AF_INET6)]
        at = [ctypes.addressof(ctypes.c_char.from_buffer(memory)) for memory in self._memories]
        self._at = self._library.dns_make(*at, count, size)
        if not self._at:
            raise MemoryError
        self._room = ctypes.create_string_buffer(_ROOM)
        self._counted = (ctypes.c_uint64 * (len(_COUNTED) + 1))()
        self._before = [0] * (len(_COUNTED) + 1)
        self.waiting = 0
        """Questions under way, as :meth:`count` found them last."""
        self.events_fd: int = self._library.dns_events(self._at)
        """Readable when there are questions or answers to be decided about; :data:`Kind.AGING` may wait."""
        self._thread = threading.Thread(target=self._library.dns_run, args=(self._at,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and everything under way."""
        self._library.dns_stop(self._at)
        self._thread.join()
        self._library.dns_free(self._at)
        self._at = None

    def listen(self, one: socket.socket) -> None:
        """Take questions from a shared socket.  Raises: OSError."""
        if self._library.dns_listen(self._at, one.fileno(), one.family == socket.AF_INET6):
            raise OSError("no room for another socket")

    def deaf(self) -> None:
        """Take no more; what is under way goes on."""
        self._library.dns_deaf(self._at)

    def lease(self, seconds: float, room: int) -> None:
        """Repeat decisions for so long, and make no more records than *room*."""
        self._library.dns_lease(self._at, seconds, room)

    def count(self, counts: Counts) -> int:
        """Add what was counted since the last time to *counts*; records that there was no room for."""
        self.waiting = self._library.dns_counts(self._at, self._counted)
        now = list(self._counted)
        grown = [new - old for new, old in zip(now, self._before, strict=True)]
        self._before = now
        for name, number in zip(_COUNTED, grown, strict=False):
            setattr(counts, name, getattr(counts, name) + number)
        missed: int = grown[-1]
        return missed

    def woken(self) -> None:
        """:attr:`events_fd` was readable; :meth:`take` is to follow."""
        os.eventfd_read(self.events_fd)

    def take(self, *, records: bool = False) -> Iterator[Event]:
        """What is to be decided, or what records are to be made of."""
        while size := self._library.dns_take(self._at, records, self._room, _ROOM):
            yield from _events(ctypes.string_at(self._room, size))

    # decisions --------------------------------------------------------------------------------------

    def pods(self, pods: Iterable[tuple[int, int, bytes]]) -> None:
        """(number, identity, address of 4 or 16 bytes) are all pods."""
        packed = [_POD.pack(number, identity, len(address), address) for number, identity, address in pods]
        self._library.dns_pods(self._at, b"".join(packed), len(packed))

    def clear(self) -> None:
        """No decision holds any more."""
        self._library.dns_clear(self._at)

    def route(self, subject: int, server: bytes, names: int, identity: int) -> None:
        """*names* (its number) judges what *subject* asks *server*, which is *identity*."""
        self._library.dns_route(self._at, subject, server, len(server), names, identity)

    def ask(self, question: int, names: int, identity: int, rule: int) -> None:
        """A question goes to its server, as will all like it; :meth:`flush` must follow."""
        self._library.dns_ask(self._at, question, names, identity, rule)

    def flush(self) -> None:
        """Send what is to be asked."""
        self._library.dns_flush(self._at)

    def believed(self, question: int) -> bool:
        """One answer will do; False: none is waited for any more."""
        return bool(self._library.dns_believed(self._at, question))

    def reply(self, question: int, message: bytes) -> None:
        """Tell the pod, nothing if *message* is empty; the identifier is put right."""
        self._library.dns_reply(self._at, question, message, len(message))

    def know(self, pod: int, name: bytes, addresses: Pairs) -> None:
        """The kernel knows (address, until when) of *name*, which are facts."""
        data = b"".join(_PAIR.pack(*pair) for pair in addresses)
        self._library.dns_know(self._at, pod, name, len(name), data, len(addresses))

    def forget(self, pod: int, name: bytes) -> None:
        """What was a fact about *name* is in doubt."""
        self._library.dns_forget(self._at, pod, name, len(name))

    def put(self, message: bytes, client: bytes, server: bytes) -> None:
        """A question that another process had not done."""
        if len(client) == len(server):
            self._library.dns_put(self._at, message, len(message), client, server, len(client))


def _events(data: bytes) -> Iterator[Event]:
    at = 0
    while at < len(data):
        size, kind, question, pod, subject, identity, *sizes, _, number, began, now, time_ns = (
            _EVENT.unpack_from(data, at)
        )
        parts, start = [], at + _EVENT.size
        for length in sizes:
            parts.append(data[start : start + length])
            start += length
        client, server, query, answer = parts
        yield Event(
            Kind(kind),
            question,
            pod,
            subject,
            identity,
            number,
            began,
            now,
            time_ns,
            client,
            server,
            query,
            answer,
        )
        at += size
