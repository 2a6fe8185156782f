"""Which fields of runtime events are told: ``field-filters``, as Tetragon has them.  Pure.

JSON objects, one after the other: ``fields`` (paths below the event, separated by commas), ``action``
(INCLUDE, EXCLUDE), ``event_set`` (of which types; none: of all) and ``invert_event_set``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cirri.manifests.runtimefilter import TYPES, BadRuntimeFilter, objects_of

Choose = Callable[[dict[str, Any]], dict[str, Any]]
"""Of an event in JSON: it, without what is not to be told."""
Tree = dict[str, Any]
"""Of names, with what is below them; {}: all of it."""
FIELDS = ("fields", "action", "event_set", "invert_event_set")
ACTIONS = ("INCLUDE", "EXCLUDE")


def fields_of(text: str) -> Choose:
    """What the filters in *text* leave, one applied after the other.  Raises: BadRuntimeFilter."""
    filters = [_filter(value) for value in objects_of(text)]

    def choose(event: dict[str, Any]) -> dict[str, Any]:
        for each in filters:
            event = each(event)
        return event

    return choose


def _filter(value: dict[str, Any]) -> Choose:
    _check(value)
    tree = _tree(value["fields"])
    types = frozenset(each.lower() for each in value.get("event_set", ()))
    invert, cut = value.get("invert_event_set", False), _only if value["action"] == "INCLUDE" else _without

    def choose(event: dict[str, Any]) -> dict[str, Any]:
        kind = next(iter(event))
        if types and (kind in types) == invert:
            return event
        return {**event, kind: cut(event[kind], tree)}

    return choose


def _check(value: dict[str, Any]) -> None:
    for name in value:
        if name not in FIELDS:
            raise BadRuntimeFilter(f"{name!r} is not allowed; allowed: {', '.join(FIELDS)}")
    fields, types = value.get("fields"), value.get("event_set", [])
    if not isinstance(fields, str) or not all(part for path in fields.split(",") for part in path.split(".")):
        raise BadRuntimeFilter("fields must be a text with paths, as in process.pod,parent.binary")
    if (action := value.get("action")) not in ACTIONS:
        raise BadRuntimeFilter(f"action: {action!r} is not allowed; allowed: {', '.join(ACTIONS)}")
    if not isinstance(types, list) or (wrong := [each for each in types if each not in TYPES]):
        told = repr(wrong[0]) if isinstance(types, list) else repr(types)
        raise BadRuntimeFilter(f"event_set: {told} is not allowed; allowed: a list of {', '.join(TYPES)}")
    if not isinstance(value.get("invert_event_set", False), bool):
        raise BadRuntimeFilter("invert_event_set must be true or false")


def _tree(paths: str) -> Tree:
    tree: Tree = {}
    for path in sorted(paths.split(","), key=lambda path: path.count("."), reverse=True):
        names, here = path.strip().split("."), tree
        for name in names[:-1]:
            here = here.setdefault(name, {})
        here[names[-1]] = {}  # shorter ones come last and have it all
    return tree


def _only(told: Any, tree: Tree) -> Any:
    if not tree:
        return told
    if isinstance(told, list):
        return [_only(each, tree) for each in told]
    if not isinstance(told, Mapping):
        return told
    return {name: _only(told[name], below) for name, below in tree.items() if name in told}


def _without(told: Any, tree: Tree) -> Any:
    if isinstance(told, list):
        return [_without(each, tree) for each in told]
    if not isinstance(told, Mapping):
        return told
    return {
        name: _without(value, tree[name]) if name in tree else value
        for name, value in told.items()
        if tree.get(name) != {}
    }
