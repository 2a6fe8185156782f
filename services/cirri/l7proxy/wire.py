"""Protocol buffers by tables: dicts with a message's field names in, bytes out, and back.

Only what Envoy's configuration and access records need.  A name that a table lacks is an error and never
left out: what Envoy is not told it does not enforce.  Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""

Table = dict[str, "Field"]


class Raw(bytes):
    """A message that has been encoded already: taken as it is."""


class Scalar(NamedTuple):
    """A type that is no message."""

    wire: int
    encode: Callable[[Any], bytes]
    decode: Callable[[Any], Any]
    zero: Any
    """What is not written, and what is read where nothing was."""


class Message:
    """A message type.  *fields* are given later where messages contain each other."""

    def __init__(self, name: str, /, **fields: Field) -> None:
        self.name, self.fields = name, fields
        self._numbers: dict[int, tuple[str, Field]] = {}

    def encode(self, value: Mapping[str, Any] | Raw) -> bytes:
        """*value* on the wire.  Raises: KeyError naming a field that the message does not have."""
        if isinstance(value, Raw):
            return value
        parts = []
        for name, one in value.items():
            if name not in self.fields:
                raise KeyError(f"{self.name} has no field {name}")
            parts.append(self.fields[name].encode(one))
        return b"".join(parts)

    def decode(self, data: bytes | memoryview) -> dict[str, Any]:
        """What *data* says in the fields that the table has; others are passed over.  Raises: ValueError."""
        if not self._numbers:
            self._numbers = {field.number: (name, field) for name, field in self.fields.items()}
        found: dict[str, Any] = {}
        for number, wire, raw in parts(data):
            if number in self._numbers:
                name, field = self._numbers[number]
                field.read(found, name, wire, raw)
        return found


class Sealed(Message):
    """One of which many are alike: :mod:`cirri.l7proxy.bulk` leaves it as it came."""


Type = Scalar | Message


class Field(NamedTuple):
    """A field of a message."""

    number: int
    type: Type
    repeated: bool = False
    optional: bool = False
    """Written also if it is zero: a member of a oneof, or of a wrapper."""

    def encode(self, value: Any) -> bytes:
        """The field, tag included."""
        if self.repeated:
            return b"".join(self._one(one) for one in value)
        if isinstance(self.type, Scalar) and value == self.type.zero and not self.optional:
            return b""
        return self._one(value)

    def _one(self, value: Any) -> bytes:
        if isinstance(self.type, Message):
            body = self.type.encode(value)
            return varint(self.number << 3 | BYTES) + varint(len(body)) + body
        body = self.type.encode(value)
        tag = varint(self.number << 3 | self.type.wire)
        return tag + varint(len(body)) + body if self.type.wire == BYTES else tag + body

    def read(self, into: dict[str, Any], name: str, wire: int, raw: Any) -> None:
        """Put one occurrence of the field into *into*."""
        expected = BYTES if isinstance(self.type, Message) else self.type.wire
        if wire != expected:
            raise ValueError(f"field {name} has wire type {wire}, not {expected}")
        value = self.type.decode(raw)
        if self.repeated:
            into.setdefault(name, []).append(value)
        else:
            into[name] = value


def varint(number: int) -> bytes:
    """*number* in base 128; a negative one as 64 bits of two's complement."""
    if 0 <= number < 0x80:
        return _SHORT[number]
    number &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def parts(data: bytes | memoryview) -> Iterator[tuple[int, int, Any]]:
    """(field, wire type, an int or the bytes) of each field in *data*.  Raises: ValueError."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _number(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _number(data, at)
            yield number, wire, value
            continue
        if wire == BYTES:
            size, at = _number(data, at)
        elif wire == FIXED64:
            size = 8
        elif wire == FIXED32:
            size = 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > end:
            raise ValueError("the message ends too early")
        yield number, wire, data[at : at + size]
        at += size


def _number(data: bytes | memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
    except IndexError:
        raise ValueError("the message ends too early") from None


_SHORT = [bytes((number,)) for number in range(0x80)]


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


STRING = Scalar(BYTES, str.encode, lambda raw: bytes(raw).decode(errors="replace"), "")
BLOB = Scalar(BYTES, bytes, bytes, b"")
NUMBER = Scalar(VARINT, varint, _signed, 0)
"""Every integer, and enums."""
BOOL = Scalar(VARINT, lambda value: varint(int(value)), bool, False)
DOUBLE = Scalar(FIXED64, struct.Struct("<d").pack, lambda raw: struct.unpack("<d", raw)[0], 0.0)
