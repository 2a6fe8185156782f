"""What stands in ``cirri_nat``: what is over is removed, and it is told when that comes to its limits."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cirri.layout import (
    METRICS,
    NAT,
    CtFlag,
    DropReason,
    MetricsValue,
    NatDirection,
    PolicyDirection,
    metrics_index,
)
from cirri.maps import open_per_cpu, open_pinned

FULL = 0.9
"""From this share of the entries on connections may be forgotten: the map keeps who was used last."""
_ADDRESS, _REMOTE, _PORT, _REST = slice(0, 16), slice(16, 32), slice(32, 34), slice(34, 37)
_DIRECTION = 37
_BACK = bytes((NatDirection.BACK, *bytes(10)))
"""Last bytes of such a key (bpf/lib/nat.h)."""
_EXPIRES, _FLAGS, _VALUE_PORT = struct.Struct("=16xQ"), struct.Struct("=24xI"), slice(32, 34)
_CLOSED = CtFlag.FIN_FORWARD | CtFlag.FIN_REPLY


def stale(
    entries: Iterable[tuple[bytes, bytes]],
    now_ns: int,
    find: Callable[[bytes], bytes | None],
    gone: Collection[bytes] = (),
) -> Iterator[bytes]:
    """Keys of entries that expired before *now_ns* (CLOCK_MONOTONIC), that were for an address in *gone*, or
    that name a port which another connection has; *find* looks a key up.

    Works on raw bytes: the map may hold a million entries, and this runs beside everything else.
    """
    out = []
    for key, value in entries:
        if key[_DIRECTION] == NatDirection.OUT:
            out.append((key, value))
        elif _EXPIRES.unpack_from(value)[0] < now_ns or value[_ADDRESS] in gone:
            yield key
    for key, value in out:
        back = find(value[_ADDRESS] + key[_REMOTE] + value[_VALUE_PORT] + key[_REST] + _BACK)
        if (
            back is None
            or (back[_ADDRESS], back[_VALUE_PORT]) != (key[_ADDRESS], key[_PORT])
            or _EXPIRES.unpack_from(back)[0] < now_ns
            or key[_ADDRESS] in gone
        ):
            yield key


def _rests(value: bytes) -> bool:
    """Whether only the port of a closed connection is kept from being used again too soon."""
    flags = CtFlag(_FLAGS.unpack_from(value)[0])
    return bool(flags & CtFlag.RESET) or _CLOSED in flags


@dataclass(slots=True)
class Pressure:
    """How near NAT is to its limits, by the last look."""

    used: int = 0
    """Entries of connections that live."""
    failed: int = 0
    """Packets for which no port was found, since the programs were loaded first."""
    lately: int = 0
    """Those of them since the look before."""
    limit: int = NAT.max_entries
    _looked: bool = False

    @property
    def fill(self) -> float:
        """The share of the entries that is in use."""
        return self.used / self.limit

    def note(self, used: int, failed: int) -> bool:
        """What was found; True if that is another thing to complain of."""
        before = self.faults()
        self.lately = failed - self.failed if self._looked else 0
        self.used, self.failed, self._looked = used, failed, True
        return self.faults() != before

    def faults(self) -> list[str]:
        """What is wrong, one sentence each."""
        found = []
        if self.fill > FULL:
            found.append(
                f"{self.used} of {self.limit} entries of {NAT.name} are in use: "
                "connections that leave under the node's address may be forgotten"
            )
        if self.lately:
            found.append(
                f"{self.lately} packets were dropped because all ports that they tried are taken: "
                "too many connections leave under the node's address to one server"
            )
        return found


class NatTable:
    """The map, and its limits."""

    def __init__(self, bpffs: Path) -> None:
        self._entries, self._metrics = open_pinned(bpffs, NAT), open_per_cpu(bpffs, METRICS)
        self.pressure = Pressure(limit=self._entries.info.max_entries)

    def sweep(self, now_ns: int) -> bool:
        """Remove what is over and look at the limits; True if that is another thing to complain of.

        Blocks for up to a second on a full map: call it in a thread.
        """
        entries = list(self._entries.items_raw())
        over = set(stale(entries, now_ns, self._entries.get_raw))
        self._entries.delete_many_raw(b"".join(over))
        used = sum(key not in over and not _rests(value) for key, value in entries)
        return self.pressure.note(used, self._failures())

    def forget(self, gone: Collection[bytes]) -> None:
        """Remove what is for pods that are *gone*, by address.  Blocks as :meth:`sweep`."""
        entries: Any = self._entries
        entries.delete_many_raw(b"".join(stale(entries.items_raw(), 0, entries.get_raw, gone)))

    def _failures(self) -> int:
        ways = (PolicyDirection.INGRESS, PolicyDirection.EGRESS)
        indexes = [metrics_index(int(DropReason.NAT_NO_MAPPING), int(way)) for way in ways]
        return sum(MetricsValue.sum(self._metrics[index]).packets for index in indexes)
