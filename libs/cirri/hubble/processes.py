"""Processes behind a flow's ends, in messages of the API.

``flow.Flow`` has no field for them, but one that is free for such additions: ``extensions``.  It holds a
``google.protobuf.Struct``, which every client of the API can print::

    {"process": {"source": {"exec_id", "pid", "binary", "arguments", "parents": [...]}, "destination": {...}}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import struct_pb2

from cirri.model.origins import FlowProcess, FlowProcesses

FIELD = "process"


def extension(pair: FlowProcesses) -> bytes:
    """The message that :func:`told` reads, serialized."""
    said = {
        side: {
            "exec_id": one.exec_id,
            "pid": one.pid,
            "binary": one.binary,
            "arguments": one.arguments,
            "parents": list(one.parents),
        }
        for side in ("source", "destination")
        if (one := getattr(pair, side)) is not None
    }
    message = struct_pb2.Struct()
    message.update({FIELD: said})
    packed: bytes = message.SerializeToString()
    return packed


def extend(flow: Any, packed: bytes) -> None:
    """Have *flow* say what :func:`extension` made."""
    flow.extensions.type_url = f"type.googleapis.com/{struct_pb2.Struct.DESCRIPTOR.full_name}"
    flow.extensions.value = packed


def told(flow: Any) -> FlowProcesses:
    """Who is behind the ends of *flow*, a ``flow.Flow`` of whatever server."""
    if not flow.HasField("extensions"):
        return FlowProcesses()
    if flow.extensions.type_url.rpartition("/")[2] != struct_pb2.Struct.DESCRIPTOR.full_name:
        return FlowProcesses()
    message = struct_pb2.Struct.FromString(flow.extensions.value)
    if FIELD not in message or not isinstance(message[FIELD], struct_pb2.Struct):
        return FlowProcesses()
    said = message[FIELD]
    return FlowProcesses(**{side: _process(said[side]) for side in ("source", "destination") if side in said})


def _process(said: Mapping[str, Any]) -> FlowProcess:
    return FlowProcess(
        exec_id=str(said["exec_id"]),
        pid=int(said["pid"]),
        binary=str(said["binary"]),
        arguments=str(said["arguments"]),
        parents=tuple(str(each) for each in said["parents"]),
    )
