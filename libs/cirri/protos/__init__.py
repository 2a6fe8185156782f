"""Sets of compiled protos, each in a descriptor pool of its own.

So a process may also hold somebody else's classes of the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from cirri.errors import CirriError

Methods = Mapping[str, tuple[Any, Any, bool]]
"""Of a service: name to (class of the request, class of the answer, whether answers are streamed)."""


class NotBuilt(CirriError):
    """The protos of *compiled* have not been compiled."""

    hint = "Compile them: make build"

    def __init__(self, compiled: Path) -> None:
        super().__init__(f"{compiled.name} has not been compiled")


def load(compiled: Path) -> Any:
    """The descriptor pool of the file descriptor set at *compiled*.  Raises: NotBuilt."""
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes())
    except FileNotFoundError:
        raise NotBuilt(compiled) from None
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


def message_class(pool: Any, name: str) -> Any:
    """The class of the message of full *name*.  Raises: KeyError."""
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def methods(pool: Any, service: str) -> Methods:
    """Of *service* (``observer.Observer``).  Raises: KeyError."""
    return {
        method.name: (
            message_class(pool, method.input_type.full_name),
            message_class(pool, method.output_type.full_name),
            method.server_streaming,
        )
        for method in pool.FindServiceByName(service).methods
    }
