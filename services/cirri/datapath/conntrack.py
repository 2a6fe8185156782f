"""Remove connections that have expired or whose pod is gone."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from cirri.layout import CtKey, CtValue
from cirri.maps import BpfMap

ADDRESS_BYTES = 16
_EXPIRES = struct.Struct("=Q")
"""First field of ``struct ct_value``; a key begins with both addresses (bpf/lib/conntrack.h)."""


def stale(
    entries: Iterable[tuple[bytes, bytes]], now_ns: int, gone: Collection[bytes] = ()
) -> Iterator[bytes]:
    """Keys of connections that expired before *now_ns* (CLOCK_MONOTONIC) or have an end in *gone*.

    Works on raw bytes: the map may hold a million entries, and this runs beside everything else.
    """
    expires = _EXPIRES.unpack_from
    for key, value in entries:
        if expires(value)[0] < now_ns or (
            gone and (key[:ADDRESS_BYTES] in gone or key[ADDRESS_BYTES : 2 * ADDRESS_BYTES] in gone)
        ):
            yield key


def expired(keys: bytes, values: bytes, count: int, now_ns: int) -> Iterator[bytes]:
    """As :func:`stale` without *gone*, of a batch (:meth:`cirri.maps.BpfMap.batches_raw`).

    Several times as fast: while Python counts, news waits for it.
    """
    step, size = CtValue.size() // _EXPIRES.size, CtKey.size()
    times = memoryview(values).cast("Q")[: count * step : step].tolist()
    return (keys[at * size : (at + 1) * size] for at, time_ns in enumerate(times) if time_ns < now_ns)


def collect(connections: BpfMap[Any, Any], now_ns: int, gone: Collection[bytes] = ()) -> int:
    """Remove what is stale; how many.  Blocks for up to a second on a full map: call it in a thread."""
    if gone:
        return connections.delete_many_raw(b"".join(stale(connections.items_raw(), now_ns, gone)))
    over = (key for batch in connections.batches_raw() for key in expired(*batch, now_ns))
    return connections.delete_many_raw(b"".join(over))
