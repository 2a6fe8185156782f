"""What newer Go clients send of some built-in kinds: Kubernetes' protobuf, read by hand.  Pure.

Only fields that such clients set (core/v1/generated.proto; ObjectMeta and Unknown of apimachinery).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

MAGIC = b"k8s\x00"
_VARINT, _LENGTH = 0, 2
_META = {1: "name", 2: "generateName", 3: "namespace"}
_META_MAPS = {11: "labels", 12: "annotations"}
_MAPS = {"Secret": {2: "data", 4: "stringData"}, "ConfigMap": {2: "data", 3: "binaryData"}}
_BYTES = {("Secret", "data"), ("ConfigMap", "binaryData")}


class Unreadable(Exception):
    """Not a message, or of a kind that is not read."""


def decoded(body: bytes) -> dict[str, Any]:
    """The object in *body*, which begins with :data:`MAGIC`.  Raises: Unreadable."""
    unknown = dict(_fields(body[len(MAGIC) :]))
    about = dict(_fields(unknown.get(1, b"")))
    version, kind = (about.get(n, b"").decode() for n in (1, 2))
    head: dict[str, Any] = {"apiVersion": version, "kind": kind}
    if kind == "DeleteOptions":
        return head
    if kind not in _MAPS:
        raise Unreadable(kind)
    for number, value in _fields(unknown.get(2, b"")):
        if number == 1:
            head["metadata"] = _metadata(value)
        elif name := _MAPS[kind].get(number):
            key, item = _entry(value)
            text = b64encode(item).decode() if (kind, name) in _BYTES else item.decode()
            head.setdefault(name, {})[key] = text
        elif (kind, number) == ("Secret", 3):
            head["type"] = value.decode()
    return head


def _metadata(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, value in _fields(body):
        if (name := _META.get(number)) and value:
            found[name] = value.decode()
        elif name := _META_MAPS.get(number):
            key, item = _entry(value)
            found.setdefault(name, {})[key] = item.decode()
    return found


def _entry(body: bytes) -> tuple[str, bytes]:
    pair = dict(_fields(body))
    return pair.get(1, b"").decode(), pair.get(2, b"")


def _fields(body: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, content) of every field that has a length; numbers are passed over.  Raises: Unreadable."""
    at = 0
    while at < len(body):
        tag, at = _varint(body, at)
        size, at = _varint(body, at)  # of a number: the number itself
        if tag & 7 == _LENGTH:
            if at + size > len(body):
                raise Unreadable("it ends too soon")
            yield tag >> 3, body[at : at + size]
            at += size
        elif tag & 7 != _VARINT:
            raise Unreadable(f"wire type {tag & 7}")


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(body):
        value |= (body[at] & 0x7F) << shift
        at += 1
        if body[at - 1] < 0x80:
            return value, at
        shift += 7
    raise Unreadable("it ends too soon")
