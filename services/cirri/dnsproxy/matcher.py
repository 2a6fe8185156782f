"""Which of many ``matchName`` and ``matchPattern`` entries a name is like.

A ``*`` never crosses a dot, so entries are a tree of labels, read from the last one: ten thousand of them
cost a name no more than its few labels.  Nothing here is a regular expression, so none can be slow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Generic, NamedTuple, Self, TypeVar

import msgspec

from cirri.engine.names import canonical_name

T = TypeVar("T")

CACHED = 65536
"""Names whose result is remembered."""
_PLAIN = re.compile(r"[-a-z0-9_]+").fullmatch
"""What a ``*`` stands for; a name on the wire may hold any bytes."""


class _Glob(NamedTuple):
    """A label with ``*`` in it: what it begins with, holds in this order, and ends with."""

    first: str
    middle: tuple[str, ...]
    last: str

    @classmethod
    def of(cls, label: str) -> Self:
        first, *middle, last = label.split("*")
        return cls(first, tuple(filter(None, middle)), last)

    def matches(self, label: str) -> bool:
        """*label* has only characters that ``*`` stands for."""
        at, end = len(self.first), len(label) - len(self.last)
        if at > end or not label.startswith(self.first) or not label.endswith(self.last):
            return False
        for part in self.middle:  # the leftmost place leaves most to what follows
            found = label.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True


class _Node(Generic[T]):
    """A label's place in the tree."""

    __slots__ = ("below", "globs", "here", "longer")

    def __init__(self) -> None:
        self.below: dict[str, _Node[T]] = {}
        self.globs: dict[_Glob, _Node[T]] = {}
        self.here: set[T] = set()
        """Of entries that end here."""
        self.longer: set[T] = set()
        """Of ``**.`` and what led here: one or more whole labels more."""


class Matcher(Generic[T]):
    """Values of entries, found by name."""

    def __init__(self, entries: Iterable[tuple[str, T]]) -> None:
        """*entries*: (canonical JSON ``{"matchName": ...}`` or ``{"matchPattern": ...}``, value)."""
        self._root: _Node[T] = _Node()
        self._every: set[T] = set()
        self._found: dict[str, frozenset[T]] = {}
        for entry, value in entries:
            for field, written in msgspec.json.decode(entry, type=dict[str, str]).items():
                self._add(canonical_name(written), value, pattern=field == "matchPattern")

    def find(self, name: str) -> frozenset[T]:
        """The values of every entry that *name* (as :func:`message.text` writes it) is like."""
        found = self._found.get(name)
        if found is None:
            if len(self._found) >= CACHED:
                self._found.clear()
            found = self._found[name] = frozenset(self._walk(name))
        return found

    def _add(self, written: str, value: T, *, pattern: bool) -> None:
        if pattern and written == "*":
            self._every.add(value)
            return
        rest, longer = written.removesuffix("."), False
        if pattern and rest.startswith("**."):
            rest, longer = rest.removeprefix("**."), True
        node = self._root
        for label in reversed(rest.split(".")):
            if pattern and "*" in label:
                node = node.globs.setdefault(_Glob.of(label), _Node())
            else:
                node = node.below.setdefault(label, _Node())
        (node.longer if longer else node.here).add(value)

    def _walk(self, name: str) -> set[T]:
        found = set(self._every)
        labels = name.removesuffix(".").split(".")
        nodes = [self._root]
        for place in range(len(labels) - 1, -1, -1):
            label = labels[place]
            plain = _PLAIN(label)
            following = []
            for node in nodes:
                if node.longer and all(map(_PLAIN, labels[: place + 1])):
                    found |= node.longer
                if (below := node.below.get(label)) is not None:
                    following.append(below)
                if plain:
                    following += [one for glob, one in node.globs.items() if glob.matches(label)]
            if not following:
                return found
            nodes = following
        for node in nodes:
            found |= node.here
        return found
