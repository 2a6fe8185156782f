"""Messages that come by the thousand: tables of :mod:`cirri.l7proxy.wire` as classes of the protobuf
runtime, which reads them in C.

Every text is bytes there: what is not UTF-8 would else spoil the message that holds it.  The runtime takes
some 20 ms to import, so this module is imported when there is something to read.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from cirri.l7proxy.wire import BOOL, BYTES, DOUBLE, Message, Sealed, Type

_KIND = descriptor_pb2.FieldDescriptorProto


def message_class(table: Message) -> Any:
    """The class for *table*: fields have the table's names.  Wrapped values are in ``value``."""
    file = descriptor_pb2.FileDescriptorProto(name="bulk.proto", package="bulk", syntax="proto3")
    name = _add(file, table)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name.removeprefix(".")))


def _add(file: Any, table: Message) -> str:
    """Add *table*, and what it contains, to *file*; its name there."""
    made = file.message_type.add(name=f"M{len(file.message_type)}")
    for name, field in table.fields.items():
        one = made.field.add(name=name, number=field.number, type=_type(field.type))
        one.label = _KIND.LABEL_REPEATED if field.repeated else _KIND.LABEL_OPTIONAL
        if isinstance(field.type, Message) and not isinstance(field.type, Sealed):
            one.type_name = _add(file, field.type)
    return f".bulk.{made.name}"


def _type(given: Type) -> Any:
    if isinstance(given, Message):
        return _KIND.TYPE_BYTES if isinstance(given, Sealed) else _KIND.TYPE_MESSAGE
    if given in (BOOL, DOUBLE):
        return _KIND.TYPE_BOOL if given is BOOL else _KIND.TYPE_DOUBLE
    return _KIND.TYPE_BYTES if given.wire == BYTES else _KIND.TYPE_INT64
