"""Which backend a connection goes to, so that every node answers alike and few connections move.

The table is filled in C: 65,521 slots for a thousand backends would take Python a quarter of a second.
"""

from __future__ import annotations

import ctypes
import hashlib
from array import array
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from cirri.errors import CirriError

SIZES = (251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071)
"""Table sizes that can be asked for: primes, at least a hundred times as many as there are backends."""
DEFAULT_SIZE = 16381
DEFAULT_SEED = "JLfvgnHc2kaSUFaI"
"""12 bytes in base64; all nodes must have the same."""
MOST = 65534
"""Backends in a table."""

WORK = 6
"""32-bit words that the C needs for each backend."""
_LIBRARY = Path(__file__).parent / "build" / "maglev.so"


class NotBuilt(CirriError):
    """The compiled part is missing."""

    hint = "Compile it: make build"

    def __init__(self) -> None:
        super().__init__(f"{_LIBRARY.name} has not been compiled")


def table(backends: Mapping[str, int], size: int = DEFAULT_SIZE, seed: str = DEFAULT_SEED) -> array[int]:
    """*size* slots of 16 bits, each the place of a backend in ``sorted(backends)``; empty without backends.

    *backends*: name -> weight.  A backend gets slots in proportion to its weight; one of weight 0 gets none.
    The same backends, sizes and seeds give the same table, on every node and after every restart.

    Raises:
        ValueError: there are more than :data:`MOST` of them.
    """
    names = sorted(backends)
    chosen = [place for place, name in enumerate(names) if backends[name] > 0]
    if not chosen:
        return array("H")
    if len(names) > MOST:
        raise ValueError(f"{len(names)} backends are more than a table takes: {MOST}")
    count = len(chosen)
    hashes, weights = array("Q"), array("I", [backends[names[place]] for place in chosen])
    key = seed.encode()
    for place in chosen:
        hashes.frombytes(hashlib.blake2b(names[place].encode(), digest_size=16, key=key).digest())
    found = array("H", bytes(2 * size))
    work = array("I", bytes(4 * WORK * count))
    _fill()(_at(found), size, count, _at(hashes), _at(weights), max(weights), _at(work))
    return found if count == len(names) else array("H", (chosen[slot] for slot in found))


def _at(values: array[int]) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.buffer_info()[0])


@cache
def _fill() -> Callable[..., None]:
    if not _LIBRARY.exists():
        raise NotBuilt
    function = ctypes.CDLL(str(_LIBRARY)).maglev_fill
    pointer, unsigned = ctypes.c_void_p, ctypes.c_uint32
    function.argtypes = [pointer, unsigned, unsigned, pointer, pointer, unsigned, pointer]
    function.restype = None
    return function
