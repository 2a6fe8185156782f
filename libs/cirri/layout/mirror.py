"""Python structs with the memory layout of C structs, and the C that proves it.

C is the contract (``bpf/lib/*.h``).  A mirror repeats a struct field by field with the types
below; :func:`static_asserts` writes C that compiles only if the two agree, and ``tests/layout``
compiles it for every entry of ``cirri.layout.MIRRORS``.
"""

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, Self, TypeVar, get_type_hints

from msgspec import Struct
from msgspec.structs import astuple

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CType:
    """How a field lies in memory."""

    format: str
    """Of :mod:`struct`, native byte order."""
    swap: Callable[[int], int] | None = None
    """Between host and network order, for ``__be16`` and ``__be32``."""


U8 = Annotated[int, CType("B")]
U16 = Annotated[int, CType("H")]
U32 = Annotated[int, CType("I")]
U64 = Annotated[int, CType("Q")]
Be16 = Annotated[int, CType("H", socket.htons)]
"""Network order in memory, an ordinary number in Python: port 80 is 80."""
Be32 = Annotated[int, CType("I", socket.htonl)]
Mac = Annotated[bytes, CType("6s")]
Address16 = Annotated[bytes, CType("16s")]
"""``union address``: see :func:`cirri.layout.address16`."""
Pad3 = Annotated[bytes, CType("3s")]
Pad4 = Annotated[bytes, CType("4s")]
Pad6 = Annotated[bytes, CType("6s")]

NO_ADDRESS = bytes(16)


class Codec(Protocol[T]):
    """What turns a value into the bytes that a kernel map holds, and back."""

    def pack(self, value: T, /) -> bytes:
        """The memory of *value*, ``size()`` bytes."""
        ...

    def unpack(self, raw: bytes, /) -> T:
        """The value in *raw*."""
        ...

    def size(self) -> int:
        """Bytes, as the C compiler counts them."""
        ...


class _Shape(NamedTuple):
    """A mirror, prepared for :mod:`struct`."""

    codec: struct.Struct
    swaps: tuple[tuple[int, Callable[[int], int]], ...]
    fields: tuple[tuple[str, int, int], ...]
    """(name, offset, size) in order."""


class Mirror(Struct, frozen=True, kw_only=True):
    """One C struct.  Values compare and hash by content; ``pack`` and ``unpack`` are exact inverses.

    A mirror class is itself the :class:`Codec` of its values.
    """

    c_name: ClassVar[str]
    """Name of the C struct."""
    header: ClassVar[str]
    """Where it stands, below ``bpf/``."""

    def pack(self) -> bytes:
        """The memory of the struct.

        Raises:
            struct.error: a number does not fit its field.
        """
        codec, swaps, _ = shape(type(self))
        values = astuple(self)
        if swaps:
            mutable = list(values)
            for index, swap in swaps:
                mutable[index] = swap(mutable[index])
            return codec.pack(*mutable)
        return codec.pack(*values)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """The struct in *raw*.

        Raises:
            struct.error: *raw* has another size.
        """
        codec, swaps, _ = shape(cls)
        values: list[Any] = list(codec.unpack(raw))
        for index, swap in swaps:
            values[index] = swap(values[index])
        return cls(**dict(zip(cls.__struct_fields__, values, strict=True)))

    @classmethod
    def size(cls) -> int:
        """``sizeof`` of the C struct."""
        return shape(cls).codec.size


@cache
def shape(mirror: type[Mirror]) -> _Shape:
    """Offsets and the ``struct`` codec of *mirror*; ``=`` adds no padding, so holes must be named."""
    hints = get_type_hints(mirror, include_extras=True)
    formats: list[str] = []
    swaps: list[tuple[int, Callable[[int], int]]] = []
    fields: list[tuple[str, int, int]] = []
    offset = 0
    for index, name in enumerate(mirror.__struct_fields__):
        ctype: CType = hints[name].__metadata__[0]
        size = struct.calcsize("=" + ctype.format)
        formats.append(ctype.format)
        fields.append((name, offset, size))
        if ctype.swap is not None:
            swaps.append((index, ctype.swap))
        offset += size
    return _Shape(struct.Struct("=" + "".join(formats)), tuple(swaps), tuple(fields))


def static_asserts(mirror: type[Mirror]) -> str:
    """C source that compiles only if *mirror* has the size and offsets of its C struct."""
    c = f"struct {mirror.c_name}"
    lines = [f'#include "{mirror.header}"']
    for name, offset, size in shape(mirror).fields:
        says = f'"{mirror.__name__}.{name}"'
        lines += [
            f"_Static_assert(__builtin_offsetof({c}, {name}) == {offset}, {says});",
            f"_Static_assert(sizeof((({c} *)0)->{name}) == {size}, {says});",
        ]
    lines.append(f'_Static_assert(sizeof({c}) == {mirror.size()}, "{mirror.__name__}");')
    return "\n".join(lines) + "\n"
