"""Mirror of ``bpf/lib/maglev.h``: tables whose slots name backends."""

from collections.abc import Iterator
from typing import Annotated, ClassVar

from cirri.layout.mirror import U32, U64, CType, Mirror
from cirri.layout.spec import NO_PREALLOC, MapSpec, MapType

HEADER = "lib/maglev.h"
MAGLEV_PART = 220
"""Slots in one value."""


class MaglevKey(Mirror, frozen=True, kw_only=True):
    """A part of a table."""

    c_name: ClassVar[str] = "maglev_key"
    header: ClassVar[str] = HEADER

    table: U64
    """:attr:`LbService.table`."""
    part: U32
    pad: U32 = 0


class MaglevPart(Mirror, frozen=True, kw_only=True):
    """Its slots, 16 bits each, which name :attr:`LbBackendKey.slot`."""

    c_name: ClassVar[str] = "maglev_part"
    header: ClassVar[str] = HEADER

    slots: Annotated[bytes, CType(f"{2 * MAGLEV_PART}s")]


def maglev_keys(table: int, size: int) -> list[MaglevKey]:
    """Of all parts of a table of *size* slots."""
    return [MaglevKey(table=table, part=part) for part in range(-(-size // MAGLEV_PART))]


def maglev_parts(slots: bytes) -> Iterator[MaglevPart]:
    """The parts that *slots*, of 16 bits each, make; the rest of the last one is zero."""
    width = 2 * MAGLEV_PART
    for at in range(0, len(slots), width):
        yield MaglevPart(slots=slots[at : at + width].ljust(width, b"\0"))


LB_MAGLEV = MapSpec("cirri_lb_maglev", HEADER, MapType.HASH, MaglevKey, MaglevPart, 262144, flags=NO_PREALLOC)
