"""YAML (and so JSON) text to plain values, with the line of every node.

Stricter than PyYAML's loaders where a mistake would go unnoticed (duplicate keys, unknown tags,
endless aliases), and closer to what ``kubectl`` reads: dates stay text, and so do numbers
written with colons.  YAML 1.1 otherwise: ``yes`` and ``on`` are booleans.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from cirri.manifests.problems import Path

try:
    from yaml import CSafeLoader as Loader
except ImportError:  # PyYAML built without libyaml: slower, same results
    from yaml import SafeLoader as Loader  # type: ignore[assignment]

MAX_DEPTH = 64
"""Nesting of maps and lists; the deepest real manifests have about 20."""
MAX_NODES = 500_000
"""Values in one document once aliases are expanded: stops "billion laughs"."""

_PREFIX = "tag:yaml.org,2002:"
_SCALARS = {_PREFIX + name for name in ("null", "bool", "int", "float", "str", "timestamp")}

_COLLECTIONS = {None, "!", _PREFIX + "map", _PREFIX + "seq"}


class Parsed(NamedTuple):
    """One document."""

    value: Any
    """None, bool, int, float, str, list or dict with text keys."""
    line: int
    """Line it starts on."""
    lines: dict[Path, int]
    """Line of every node (for a mapping's value, the line of its key)."""


class YamlError(Exception):
    """The text is not what we read; *line* (1-based, 0 unknown) and what is wrong."""

    def __init__(self, line: int, message: str) -> None:
        self.line, self.message = line, message
        super().__init__(f"line {line}: {message}")


class _Node(NamedTuple):
    line: int
    value: Any
    """A scalar's value, a list of nodes, or a dict of (key line, node)."""


def documents(text: str) -> Iterator[Parsed]:
    """Every document in *text* that is not empty.  Raises :class:`YamlError`."""
    try:
        loader = Loader(text)
    except yaml.YAMLError as error:
        raise _problem(error) from None
    try:
        yield from _Composer(loader).documents()
    except yaml.YAMLError as error:
        raise _problem(error) from None
    finally:
        loader.dispose()


def _problem(error: yaml.YAMLError) -> YamlError:
    """The scanner's complaint in one line."""
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
    context = getattr(error, "context", None)
    line = mark.line + 1 if mark is not None else 0
    return YamlError(line, f"not valid YAML: {f'{context}: ' if context else ''}{what}")


class _Composer:
    """Events to nodes to values; one per text."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._anchors: dict[str, _Node | None] = {}

    def documents(self) -> Iterator[Parsed]:
        while True:
            event = self._loader.get_event()
            if isinstance(event, yaml.StreamEndEvent):
                return
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            self._anchors = {}
            root = self._compose(self._loader.get_event(), 0)
            if root.value is None:
                continue
            lines: dict[Path, int] = {}
            yield Parsed(_plain(root, root.line, (), lines), root.line, lines)

    def _compose(self, event: Any, depth: int) -> _Node:
        line = event.start_mark.line + 1
        if depth > MAX_DEPTH:
            raise YamlError(line, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            node = self._anchors.get(event.anchor or "")
            if node is None:
                raise YamlError(line, f"alias *{event.anchor} names nothing that is complete before it")
            return node
        anchor = event.anchor
        if anchor is not None:
            self._anchors[anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = _Node(line, self._scalar(event, line))
        elif event.tag not in _COLLECTIONS:
            raise _unknown_tag(event.tag, line)
        elif isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(following := self._loader.get_event(), yaml.SequenceEndEvent):
                items.append(self._compose(following, depth + 1))
            node = _Node(line, items)
        else:
            node = _Node(line, self._mapping(depth))
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _mapping(self, depth: int) -> dict[str, tuple[int, _Node]]:
        own: dict[str, tuple[int, _Node]] = {}
        merged: dict[str, tuple[int, _Node]] = {}
        while True:
            event: Any = self._loader.get_event()
            if isinstance(event, yaml.MappingEndEvent):
                return {**merged, **own}
            line = event.start_mark.line + 1
            key = self._compose(event, depth + 1).value
            node = self._compose(self._loader.get_event(), depth + 1)
            if key == "<<" and isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
                for source in node.value if isinstance(node.value, list) else [node]:
                    if not isinstance(source.value, dict):
                        raise YamlError(line, "<< merges mappings only")
                    merged = {**source.value, **merged}
                continue
            if not isinstance(key, str):
                raise YamlError(line, f"a field name must be text; {_shown(key)} needs quotes")
            if key in own:
                raise YamlError(line, f'duplicate key "{key}", first on line {own[key][0]}')
            own[key] = (line, node)

    def _scalar(self, event: Any, line: int) -> Any:
        tag = event.tag
        if tag is None or tag == "!":
            tag = self._loader.resolve(  # type: ignore[no-untyped-call]
                yaml.ScalarNode, event.value, event.implicit
            )
        if tag == _PREFIX + "merge":
            tag = _PREFIX + "str"
        if tag not in _SCALARS:
            raise _unknown_tag(tag, line)
        numeric = tag in (_PREFIX + "int", _PREFIX + "float")
        if tag in (_PREFIX + "str", _PREFIX + "timestamp") or (numeric and ":" in event.value):
            return event.value
        try:
            value = self._loader.construct_object(yaml.ScalarNode(tag, event.value))
        except (ValueError, KeyError):
            raise YamlError(line, f"{event.value!r} is not a {tag.removeprefix(_PREFIX)}") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise YamlError(line, f"{event.value} is not a number that a manifest can hold")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise YamlError(line, f"{event.value} does not fit into 64 bits")
        return value


def _unknown_tag(tag: str, line: int) -> YamlError:
    return YamlError(line, f"tag {tag.replace(_PREFIX, '!!')} is not allowed in a manifest")


def _shown(key: Any) -> str:
    if isinstance(key, (list, dict)):
        return "a collection"
    return "null" if key is None else str(key).lower()


def _plain(node: _Node, line: int, path: Path, lines: dict[Path, int]) -> Any:
    """The value of *node*; notes in *lines* where each part stands."""
    lines[path] = line
    if len(path) > MAX_DEPTH:
        raise YamlError(node.line, f"nested deeper than {MAX_DEPTH} levels")
    if len(lines) > MAX_NODES:
        raise YamlError(node.line, f"more than {MAX_NODES} values in one document")
    if isinstance(node.value, list):
        return [_plain(item, item.line, (*path, i), lines) for i, item in enumerate(node.value)]
    if isinstance(node.value, dict):
        return {
            key: _plain(value, key_line, (*path, key), lines) for key, (key_line, value) in node.value.items()
        }
    return node.value
