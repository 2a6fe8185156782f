"""Which process is behind the ends of rows, where the node's sensor notes it; nothing, or the right one.

Packets do not say who sent them, so their ends are looked up among those of sockets (``bpf/lib/origin.h``):
by both ends, as the socket that opened a TCP connection knows them; else, where the pod asks or sends, by its
own end alone, as packets may show a backend where the socket knows a Service; where it is asked, by who
listens.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cirri.history.rows import Reply, Rows, RowType
from cirri.layout import ORIGIN_SPACES, ORIGINS, OriginKind, PolicyDirection
from cirri.maps import BpfError, BpfMap, open_pinned
from cirri.model import End
from cirri.model.origins import FlowProcess, FlowProcesses, WhoAsked, WhoIs

FOLDER = "sensor"
"""Of the pins, below the node's."""
RIVAL_NS = 120_000_000_000
"""An end that another process had so shortly before says nothing by itself."""
FRESH_NS = 10_000_000_000
"""How long after it was noted a TCP connection's own end says who opened it, where both ends do not: proxies
use addresses of pods, too, with ports of their choice."""
LATE_NS = 50_000_000
"""A message may be seen so long before its sender is noted."""
LOOKUPS = 8192
"""In the kernel for one table: of a flood's rows the others stay without."""
REMEMBERED = 16384
SPANS = 4
"""Programs of one process that are remembered."""
DEAF_S = 5.0
"""After a question that nobody answered, nobody waits for answers so long."""
TCP, UDP, ICMPS = 6, 17, (1, 58)
SYN, ACK = 2, 16
_KEY = struct.Struct(">16s16sHHBBH")
_VALUE = struct.Struct("=QQQQII")
_ANY = b"\xff" * 8

Process = tuple[int, int]
"""(number, ns of CLOCK_BOOTTIME at its beginning)."""


class _Noted(NamedTuple):
    start: int
    time: int
    rival: int
    cookie: int
    pid: int
    pad: int


class Origins:
    """Processes behind ends; :attr:`asked` are those that the sensor has to be asked for."""

    def __init__(self, bpffs: Path) -> None:
        self._folder = bpffs / FOLDER
        self._origins: BpfMap[Any, Any] | None = None
        self._spaces: BpfMap[Any, Any] | None = None
        self._inode = 0
        self._known: dict[Process, list[WhoIs]] = {}
        self._pairs: dict[tuple[str, str], FlowProcesses] = {}
        self._deaf_until = 0.0
        self.asked: dict[Process, WhoAsked] = {}

    def look(self) -> None:
        """Find the sensor's maps, or that there are others now."""
        try:
            inode = (self._folder / ORIGINS.name).stat().st_ino
        except OSError:
            inode = 0
        if inode == self._inode:
            return
        self.close()
        if inode:
            with suppress(BpfError):
                self._origins = open_pinned(self._folder, ORIGINS)
                self._spaces = open_pinned(self._folder, ORIGIN_SPACES)
                self._inode = inode

    def close(self) -> None:
        """Give the maps back."""
        for each in (self._origins, self._spaces):
            if each is not None:
                each.close()
        self._origins = self._spaces = None
        self._inode = 0

    def learn(self, found: Iterable[WhoIs]) -> None:
        """The sensor has answered."""
        if len(self._known) > REMEMBERED:
            self._known.clear()
        if len(self._pairs) > REMEMBERED:
            self._pairs.clear()
        for each in found:
            key = each.asked.pid, each.asked.start
            spans = self._known.setdefault(key, [])
            spans[:] = [one for one in spans if one.process != each.process][-SPANS + 1 :]
            spans.append(each)

    def unheard(self) -> None:
        """The sensor has not answered."""
        self._deaf_until = time.monotonic() + DEAF_S

    def point(self, rows: Rows, ends: Sequence[End]) -> tuple[list[FlowProcesses], set[Process]]:
        """Have column ``processes`` of *rows* point to what is returned; and who is still asked for."""
        if self._origins is None:
            return [], set()
        local = np.array([False, *(end.endpoint != 0 for end in ends)])
        which = np.flatnonzero(
            np.isin(rows["protocol"], (TCP, UDP, *ICMPS))
            & (local[rows["source_end"]] | local[rows["destination_end"]])
        )
        if not len(which):
            return [], set()
        finding = _Finding(
            self._origins, self._spaces, time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        )
        found: dict[FlowProcesses, int] = {}
        waiting: set[Process] = set()
        for index, row in zip(which.tolist(), rows[which].tolist(), strict=True):
            if finding.left <= 0:
                break
            one = _Row(*(row[at] for at in _AT))
            source = self._who(finding.source(one) if local[one.source_end] else None, waiting)
            destination = self._who(finding.destination(one) if local[one.destination_end] else None, waiting)
            if source is None and destination is None:
                continue
            pair = self._pair(source, destination)
            rows["processes"][index] = found.setdefault(pair, len(found) + 1)
        return list(found), waiting if time.monotonic() >= self._deaf_until else set()

    def _who(self, noted: _Noted | None, waiting: set[Process]) -> FlowProcess | None:
        if noted is None:
            return None
        key = noted.pid, noted.start
        for span in self._known.get(key, ()):
            if span.since <= noted.time <= span.until or span.asked.time == noted.time:
                return span.process
        had = self.asked.get(key)
        if had is None or had.time < noted.time:
            self.asked[key] = WhoAsked(pid=noted.pid, start=noted.start, time=noted.time)
        waiting.add(key)
        return None

    def _pair(self, source: FlowProcess | None, destination: FlowProcess | None) -> FlowProcesses:
        """The same object for the same two."""
        key = source.exec_id if source else "", destination.exec_id if destination else ""
        if (found := self._pairs.get(key)) is None:
            found = self._pairs[key] = FlowProcesses(source=source, destination=destination)
        return found


class _Row(NamedTuple):
    time: int
    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    source_end: int
    destination_end: int
    type: int
    protocol: int
    direction: int
    tcp_flags: int
    reply: int

    @property
    def asks(self) -> bool:
        """Whether it surely goes the way that its connection was opened."""
        if self.reply != Reply.UNKNOWN or not self.direction:
            return self.reply == Reply.NO
        opens = self.protocol != TCP or self.tcp_flags & (SYN | ACK) == SYN
        return self.type == RowType.POLICY_VERDICT or (self.type == RowType.DROP and opens)

    @property
    def sent_here(self) -> bool:
        """Whether a local source sent it for sure: what is judged at egress was."""
        return self.direction == PolicyDirection.EGRESS or self.reply != Reply.UNKNOWN


def _places() -> tuple[int, ...]:
    from cirri.history.rows import ROW

    names = list(ROW.names or ())
    return tuple(names.index(name) for name in _Row._fields)


_AT = _places()


class _Finding:
    """Lookups for one table."""

    def __init__(self, origins: BpfMap[Any, Any], spaces: BpfMap[Any, Any] | None, wall_ns: int) -> None:
        self._origins, self._spaces, self._wall_ns = origins, spaces, wall_ns
        self._seen: dict[bytes, _Noted | None] = {}
        self._near: dict[bytes, bytes | None] = {}
        self.left = LOOKUPS

    def source(self, row: _Row) -> _Noted | None:
        """Who sent it."""
        near, far = (row.source, row.source_port), (row.destination, row.destination_port)
        if row.protocol == TCP:
            pair = self._pair(row, near, far)
            if pair is not None:
                return pair
            if row.asks:
                return self._alone(row, near, OriginKind.SENDER)
            return self._alone(row, near, OriginKind.LISTENER) if row.reply == Reply.YES else None
        if row.protocol == UDP:
            return self._alone(row, near, OriginKind.SENDER) if row.sent_here else None
        return self._alone(row, near, OriginKind.SENDER) if row.asks else None

    def destination(self, row: _Row) -> _Noted | None:
        """Whom it is for."""
        near, far = (row.destination, row.destination_port), (row.source, row.source_port)
        if row.protocol == TCP:
            pair = self._pair(row, near, far)
            if pair is not None:
                return pair
            if row.reply == Reply.YES:
                return self._alone(row, near, OriginKind.SENDER)
            return self._alone(row, near, OriginKind.LISTENER) if row.asks else None
        if row.reply != Reply.YES:
            return None
        if row.protocol in ICMPS:
            near = row.destination, row.source_port
        return self._alone(row, near, OriginKind.SENDER)

    def _pair(self, row: _Row, near: tuple[bytes, int], far: tuple[bytes, int]) -> _Noted | None:
        raw = _KEY.pack(near[0], far[0], near[1], far[1], row.protocol, OriginKind.PAIR, 0)
        found = self._get(raw)
        return found if found is not None and found.time <= row.time - self._wall_ns else None

    def _alone(self, row: _Row, near: tuple[bytes, int], kind: OriginKind) -> _Noted | None:
        when = row.time - self._wall_ns
        for address in (near[0], self._any(near[0])):
            if address is None:
                continue
            found = self._get(_KEY.pack(address, bytes(16), near[1], 0, row.protocol, kind, 0))
            if found is None:
                continue
            if found.time > when + (0 if row.protocol == TCP else LATE_NS):
                return None
            if row.protocol == TCP and kind == OriginKind.SENDER and when - found.time > FRESH_NS:
                return None
            return None if found.rival and when - found.rival < RIVAL_NS else found
        return None

    def _any(self, address: bytes) -> bytes | None:
        """How sockets are known that are bound to no address, where *address* is."""
        if address not in self._near and self._spaces is not None:
            self.left -= 1
            raw = self._spaces.get_raw(address)
            self._near[address] = _ANY + raw if raw is not None else None
        return self._near.get(address)

    def _get(self, raw: bytes) -> _Noted | None:
        if raw not in self._seen:
            self.left -= 1
            value = self._origins.get_raw(raw)
            self._seen[raw] = _Noted(*_VALUE.unpack(value)) if value is not None else None
        return self._seen[raw]
