"""Map keys and values that are no struct: a number, or an address alone."""

import struct
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Number:
    """Codec of an unsigned number in the CPU's byte order."""

    c_type: str
    format: str

    def pack(self, value: int) -> bytes:
        """The memory of *value*."""
        return struct.pack("=" + self.format, value)

    def unpack(self, raw: bytes) -> int:
        """The number in *raw*."""
        number: int = struct.unpack("=" + self.format, raw)[0]
        return number

    def size(self) -> int:
        """Bytes."""
        return struct.calcsize("=" + self.format)


@dataclass(frozen=True, slots=True)
class Raw:
    """Codec of bytes that stay bytes."""

    c_type: str
    width: int

    def pack(self, value: bytes) -> bytes:
        """*value* itself.

        Raises:
            ValueError: it has another size.
        """
        if len(value) != self.width:
            raise ValueError(f"{self.c_type} has {self.width} bytes, not {len(value)}")
        return value

    def unpack(self, raw: bytes) -> bytes:
        """*raw* itself."""
        return raw

    def size(self) -> int:
        """Bytes."""
        return self.width


U32_NUMBER = Number("__u32", "I")
U64_NUMBER = Number("__u64", "Q")
ADDRESS = Raw("union address", 16)
