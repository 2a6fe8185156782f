"""Remove connections that have expired or whose pod is gone; what is left to tell of them is told before."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from cirri.layout import CtKey, CtValue
from cirri.maps import BpfMap, Program, SkBuff, test_run

REST = "tc/rest"
"""The program that tells it."""
AT_ONCE = 64
"""Keys that it takes (bpf/bpf_rest.c)."""
PATIENCE_S, PAUSE_S = 1.0, 0.02
"""How long a sweep waits for whoever reads the ring; then what does not fit is lost, and counted."""
ADDRESS_BYTES = 16
_NUMBERS = struct.Struct("=3Q")
"""The first fields of ``struct ct_value``: expires, forward_untold, reply_untold (bpf/lib/conntrack.h);
a key begins with both addresses."""
_NUMBER = 8

Stale = tuple[bytes, bool]
"""The key of a connection to be removed, and whether something of it is untold."""
Tell = Callable[[bytes], None]
"""Has told what is left of the connections whose keys it is given, in a row."""


def stale(
    entries: Iterable[tuple[bytes, bytes]], now_ns: int, gone: Collection[bytes] = ()
) -> Iterator[Stale]:
    """Connections that expired before *now_ns* (CLOCK_MONOTONIC) or have an end in *gone*.

    Works on raw bytes: the map may hold a million entries, and this runs beside everything else.
    """
    numbers = _NUMBERS.unpack_from
    for key, value in entries:
        expires, forward, reply = numbers(value)
        if expires < now_ns or (
            gone and (key[:ADDRESS_BYTES] in gone or key[ADDRESS_BYTES : 2 * ADDRESS_BYTES] in gone)
        ):
            yield key, bool(forward or reply)


def expired(keys: bytes, values: bytes, count: int, now_ns: int) -> Iterator[Stale]:
    """As :func:`stale` without *gone*, of a batch (:meth:`cirri.maps.BpfMap.batches_raw`).

    Several times as fast: while Python counts, news waits for it.
    """
    step, size = CtValue.size() // _NUMBER, CtKey.size()
    numbers = memoryview(values).cast("Q")[: count * step]
    times = numbers[::step].tolist()
    return (
        (keys[at * size : (at + 1) * size], bool(numbers[at * step + 1] or numbers[at * step + 2]))
        for at, time_ns in enumerate(times)
        if time_ns < now_ns
    )


def collect(
    connections: BpfMap[Any, Any], now_ns: int, gone: Collection[bytes] = (), tell: Tell | None = None
) -> int:
    """Remove what is stale; how many.  Blocks for up to a second on a full map, and for another one if
    nobody reads events: call it in a thread."""
    if gone:
        found = list(stale(connections.items_raw(), now_ns, gone))
    else:
        found = [one for batch in connections.batches_raw() for one in expired(*batch, now_ns)]
    if tell is not None and (untold := b"".join(key for key, left in found if left)):
        tell(untold)
    return connections.delete_many_raw(b"".join(key for key, _ in found))


def rest(program: Program, patience_s: float = PATIENCE_S) -> Tell:
    """What has *program* tell it; waits while the ring is crowded, but not for long."""
    frame, size = bytes(14), CtKey.size()

    def tell(keys: bytes) -> None:
        deadline = time.monotonic() + patience_s
        at = 0
        while at < len(keys):
            late = time.monotonic() >= deadline
            some = keys[at : at + AT_ONCE * size]
            done = test_run(program, frame + some, context=SkBuff(mark=late)).action
            at += done * size
            if done * size < len(some) and not late:
                time.sleep(PAUSE_S)

    return tell
