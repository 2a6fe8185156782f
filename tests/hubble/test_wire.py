"""What goes over the wire: numbers and types of our .proto files beside those of the client's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.hubble.client import PROTOS, message

from cirri.hubble import messages

FILES = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("*/*.proto"))
VARINT = {"int32", "uint32", "int64", "uint64", "bool", "enum"}


def each(described: Any) -> Iterator[Any]:
    """The messages of a file, with those inside others."""
    for one in described.values():
        yield one
        yield from each({inner.name: inner for inner in one.nested_types})


def kind(field: Any) -> tuple[int, bool, str]:
    """Number, whether it is repeated, and how the wire tells it: a number of an enumeration is a number."""
    names = {number: name.removeprefix("TYPE_").lower() for name, number in TYPES.items()}
    said = names[field.type]
    if said == "message":
        said = str(field.message_type.full_name)
    return field.number, field.is_repeated, "varint" if said in VARINT else said


TYPES = {
    name: getattr(type(message("flow.Flow").DESCRIPTOR.fields[0]), name)
    for name in dir(type(message("flow.Flow").DESCRIPTOR.fields[0]))
    if name.startswith("TYPE_")
}


@pytest.mark.parametrize("file", FILES)
def test_numbers_and_types_are_the_same(file: str) -> None:
    theirs = message("flow.Flow").DESCRIPTOR.file.pool.FindFileByName(file)
    compared = 0
    for one in each(theirs.message_types_by_name):
        ours = messages.message(one.full_name).DESCRIPTOR
        for field in one.fields:
            assert kind(ours.fields_by_name[field.name]) == kind(field), field.full_name
            compared += 1
    for service in theirs.services_by_name.values():
        methods = messages.methods(service.full_name)
        for method in service.methods:
            asked, answered, streamed = methods[method.name]
            assert asked.DESCRIPTOR.full_name == method.input_type.full_name
            assert answered.DESCRIPTOR.full_name == method.output_type.full_name
            assert streamed == method.server_streaming
            compared += 1
    for enum in theirs.enum_types_by_name.values():
        values = messages.enum(enum.full_name)
        for value in enum.values:
            assert values.Value(value.name) == value.number
            compared += 1
    assert compared
