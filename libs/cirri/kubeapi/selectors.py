"""``labelSelector`` and ``fieldSelector`` of requests.  Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Matches = Callable[[Mapping[str, Any]], bool]
_SET = re.compile(r"^\s*(?P<key>[^\s!=,()]+)\s+(?P<word>in|notin)\s*\((?P<values>[^)]*)\)\s*$")
_EQUAL = re.compile(r"^\s*(?P<key>[^\s!=,()]+)\s*(?P<word>==|=|!=)\s*(?P<value>[^\s!=,()]*)\s*$")
_BARE = re.compile(r"^\s*(?P<not>!?)\s*(?P<key>[^\s!=,()]+)\s*$")
_COMMA = re.compile(r",(?![^(]*\))")


class BadSelector(Exception):
    """A selector that cannot be read: 400."""


def label_selector(text: str) -> Matches:
    """Whether an object's labels match *text*.  Raises :class:`BadSelector`."""
    tests = [_labels(part) for part in _COMMA.split(text) if part.strip()]
    return lambda manifest: all(t(manifest.get("metadata", {}).get("labels") or {}) for t in tests)


def _labels(part: str) -> Callable[[Mapping[str, str]], bool]:
    if found := _SET.match(part):
        key, values = found["key"], {value.strip() for value in found["values"].split(",")}
        if found["word"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUAL.match(part):
        key, value = found["key"], found["value"]
        if found["word"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _BARE.match(part):
        key, absent = found["key"], bool(found["not"])
        return lambda labels: (key in labels) != absent
    raise BadSelector(f"unable to parse requirement: {part!r}")


def field_selector(text: str) -> Matches:
    """Whether an object's fields (by path) match *text*.  Raises :class:`BadSelector`."""
    tests = []
    for part in filter(None, text.split(",")):
        found = _EQUAL.match(part)
        if not found:
            raise BadSelector(f"invalid selector: {part!r}; can't understand it")
        tests.append((found["key"].split("."), found["value"], found["word"] != "!="))
    return lambda manifest: all((_field(manifest, path) == value) == equal for path, value, equal in tests)


def _field(manifest: Any, path: list[str]) -> str:
    for part in path:
        manifest = manifest.get(part) if isinstance(manifest, Mapping) else None
    return "" if manifest is None else str(manifest)
