"""Remove connections that have expired or whose pod is gone; what is left to tell of them is told before."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from cirri.layout import CtKey, CtValue
from cirri.maps import BpfMap, Program, SkBuff, test_run

REST = "tc/rest"
"""The program that does both."""
AT_ONCE = 64
"""Keys that it takes (bpf/bpf_rest.c)."""
PATIENCE_S, PAUSE_S = 1.0, 0.02
"""How long a sweep waits for whoever reads the ring; then what does not fit is lost, and counted."""
ADDRESS_BYTES = 16
_EXPIRES = struct.Struct("=Q")
"""The first field of ``struct ct_value`` (bpf/lib/conntrack.h); a key begins with both addresses."""
_NUMBER = _EXPIRES.size
_FRAME = 14
"""Bytes before the first key, in what stands for a packet; the first of them are a time."""
END_OF_TIME = (1 << 64) - 1
"""The time before which everything has expired."""

Remove = Callable[[bytes, int], None]
"""Removes the connections whose keys it is given, in a row, if they expired before a time."""


def stale(
    entries: Iterable[tuple[bytes, bytes]], now_ns: int, gone: Collection[bytes] = ()
) -> Iterator[tuple[bytes, bool]]:
    """(key, whether an end of it is in *gone*) of connections for which that holds, or that expired before
    *now_ns* (CLOCK_MONOTONIC).

    Works on raw bytes: the map may hold a million entries, and this runs beside everything else.
    """
    expires = _EXPIRES.unpack_from
    for key, value in entries:
        if gone and (key[:ADDRESS_BYTES] in gone or key[ADDRESS_BYTES : 2 * ADDRESS_BYTES] in gone):
            yield key, True
        elif expires(value)[0] < now_ns:
            yield key, False


def expired(keys: bytes, values: bytes, count: int, now_ns: int) -> Iterator[bytes]:
    """Keys as :func:`stale` gives them without *gone*, of a batch (:meth:`cirri.maps.BpfMap.batches_raw`).

    Several times as fast: while Python counts, news waits for it.
    """
    step, size = CtValue.size() // _NUMBER, CtKey.size()
    times = memoryview(values).cast("Q")[: count * step : step].tolist()
    return (keys[at * size : (at + 1) * size] for at, time_ns in enumerate(times) if time_ns < now_ns)


def collect(
    connections: BpfMap[Any, Any], now_ns: int, gone: Collection[bytes] = (), remove: Remove | None = None
) -> int:
    """Remove what is stale; how many were.  Blocks for up to a second on a full map, and for another one if
    nobody reads events: call it in a thread.

    *remove* looks again at each, since packets may have come meanwhile; without it nothing is told, and what
    lives again is removed all the same.
    """
    if not gone:
        old = b"".join(key for batch in connections.batches_raw() for key in expired(*batch, now_ns))
        dead = b""
    else:
        found = list(stale(connections.items_raw(), now_ns, gone))
        old, dead = (b"".join(key for key, one in found if one is which) for which in (False, True))
    if remove is None:
        connections.delete_many_raw(old + dead)
    else:
        remove(old, now_ns)
        remove(dead, END_OF_TIME)
    return (len(old) + len(dead)) // CtKey.size()


def remover(program: Program, patience_s: float = PATIENCE_S) -> Remove:
    """What has *program* tell and remove them; waits while the ring is crowded, but not for long."""
    rest, size = bytes(_FRAME - _EXPIRES.size), CtKey.size()

    def remove(keys: bytes, now_ns: int) -> None:
        deadline = time.monotonic() + patience_s
        frame, at = _EXPIRES.pack(now_ns) + rest, 0
        while at < len(keys):
            late = time.monotonic() >= deadline
            some = keys[at : at + AT_ONCE * size]
            done = test_run(program, frame + some, context=SkBuff(mark=late)).action
            at += done * size
            if done * size < len(some) and not late:
                time.sleep(PAUSE_S)

    return remove
