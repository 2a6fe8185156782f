"""Remove connections that have expired or whose pod is gone."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator
from typing import Any

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


def collect(connections: BpfMap[Any, Any], now_ns: int, gone: Collection[bytes] = ()) -> int:
    """Remove what is stale; how many.  Blocks for up to a second on a full map: call it in a thread."""
    return connections.delete_many_raw(b"".join(stale(connections.items_raw(), now_ns, gone)))
