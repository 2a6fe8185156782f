"""What a map is made of: the mirror of a ``MAP(...)`` line."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

from cirri.layout.mirror import Codec, Mirror
from cirri.layout.scalar import Number, Raw

K = TypeVar("K")
V = TypeVar("V")


class MapType(IntEnum):
    """``enum bpf_map_type`` of <linux/bpf.h>, as far as it is used."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    RINGBUF = 27

    @property
    def per_cpu(self) -> bool:
        """Whether a lookup gives one value for each possible CPU."""
        return self in (MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH)


NO_PREALLOC = 1
"""``BPF_F_NO_PREALLOC``."""


@dataclass(frozen=True, slots=True)
class MapSpec(Generic[K, V]):
    """A pinned map and the types of its keys and values."""

    name: str
    header: str
    type: MapType
    key: Codec[K]
    value: Codec[V]
    max_entries: int
    """Unless the loader asks for another number; of a ring buffer: bytes."""
    flags: int = 0


def c_type(codec: object) -> str:
    """Name of the C type behind *codec*."""
    if isinstance(codec, type) and issubclass(codec, Mirror):
        return f"struct {codec.c_name}"
    assert isinstance(codec, Number | Raw)
    return codec.c_type


def map_asserts(spec: MapSpec[K, V]) -> str:
    """C source that compiles only if *spec* is the map its header declares.

    libbpf's ``__uint(field, n)`` declares a pointer to an array of n ints, ``__type`` a pointer
    to the type (``bpf_helpers.h``), so both can be asked with ``sizeof`` and ``typeof``.
    """
    m = spec.name
    numbers = {"type": spec.type.value, "max_entries": spec.max_entries, "pinning": 1}
    lines = [f'#include "{spec.header}"']
    if spec.type is not MapType.RINGBUF:
        numbers["map_flags"] = spec.flags
        for member, codec in (("key", spec.key), ("value", spec.value)):
            same = f"__builtin_types_compatible_p(typeof(*{m}.{member}), {c_type(codec)})"
            lines.append(f'_Static_assert({same}, "{m} {member}");')
            lines.append(f'_Static_assert(sizeof(*{m}.{member}) == {codec.size()}, "{m} {member} size");')
    for member, number in numbers.items():
        lines.append(f'_Static_assert(sizeof(*{m}.{member}) == {number}UL * sizeof(int), "{m} {member}");')
    return "\n".join(lines) + "\n"
