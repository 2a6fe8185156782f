"""Which runtime events are wanted: lists of filters in JSON, as the field's export knows them.  Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cirri.engine.regex import complaint, finds
from cirri.errors import CirriError
from cirri.model.runtimeevents import EVENT_TYPES, Process, RuntimeBatch, RuntimeEvent

Test = Callable[[RuntimeEvent, RuntimeBatch], bool]
_TEXTS: Mapping[str, Callable[[Process], str | None]] = {
    "binary_regex": lambda process: process.binary,
    "arguments_regex": lambda process: process.arguments,
    "pod_regex": lambda process: process.pod.name if process.pod else None,
}
_VALUES: Mapping[str, Callable[[RuntimeEvent, Process], Any]] = {
    "event_set": lambda event, _: event.type.upper(),
    "namespace": lambda _, process: process.pod.namespace if process.pod else "",
    "pid": lambda _, process: process.pid,
    "policy_names": lambda event, _: event.policy_name,
}
FIELDS = (*_VALUES, *_TEXTS)
"""Of a filter: all that are given must match, each by one of its values; ``_regex``: anywhere in the text."""
TYPES = tuple(name.upper() for name in EVENT_TYPES)


class BadRuntimeFilter(CirriError):
    """A filter cannot be used."""


def wanted(allow: str, deny: str) -> Test:
    """Whether a filter in *allow* matches (if it has any) and none in *deny*.  Raises: BadRuntimeFilter."""
    include, exclude = filters_of(allow), filters_of(deny)

    def test(event: RuntimeEvent, batch: RuntimeBatch) -> bool:
        if include and not any(each(event, batch) for each in include):
            return False
        return not any(each(event, batch) for each in exclude)

    return test


def filters_of(text: str) -> list[Test]:
    """What each filter in *text* says.  Raises: BadRuntimeFilter."""
    return [_filter(value) for value in objects_of(text)]


def objects_of(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in *text*, one after the other.  Raises: BadRuntimeFilter."""
    decoder, rest = json.JSONDecoder(), text.strip()
    while rest:
        try:
            value, end = decoder.raw_decode(rest)
        except ValueError as error:
            raise BadRuntimeFilter(f"no JSON: {rest[:40]!r}: {error}") from None
        if not isinstance(value, dict) or not value:
            raise BadRuntimeFilter(f"{value!r} is no filter: it must be an object with fields")
        yield value
        rest = rest[end:].lstrip()


def _filter(value: dict[str, Any]) -> Test:
    for name, choices in value.items():
        _check(name, choices)

    def test(event: RuntimeEvent, batch: RuntimeBatch) -> bool:
        process = batch.processes[event.process]
        return all(_fits(name, choices, event, process) for name, choices in value.items())

    return test


def _check(name: str, choices: Any) -> None:
    if name not in FIELDS:
        raise BadRuntimeFilter(f"{name!r} is not allowed; allowed: {', '.join(FIELDS)}")
    kind = int if name == "pid" else str
    if not isinstance(choices, list) or not choices or not all(type(each) is kind for each in choices):
        raise BadRuntimeFilter(f"{name} must be a list of {'numbers' if kind is int else 'texts'}")
    for each in choices:
        if name == "event_set" and each not in TYPES:
            raise BadRuntimeFilter(f"event_set: {each!r} is not allowed; allowed: {', '.join(TYPES)}")
        if name in _TEXTS and (why := complaint(each)):
            raise BadRuntimeFilter(f"{name}: {each!r}: {why}")


def _fits(name: str, choices: list[Any], event: RuntimeEvent, process: Process) -> bool:
    if name in _VALUES:
        return _VALUES[name](event, process) in choices
    text = _TEXTS[name](process)
    return text is not None and any(finds(each, text) for each in choices)
