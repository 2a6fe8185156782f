"""Schemas as data: small frozen specs that a table of fields is made of.

``spec.read(value, path, faults)`` returns the value with nulls dropped and defaults filled in,
and appends what is wrong to *faults*.  Strict: a field that a table does not list is a fault.
As in Kubernetes, a field that is null counts as omitted; an empty list does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cirri.manifests.problems import Path, listed, suggestion

Fault = tuple[Path, str]
"""Where, and what is wrong."""
Faults = list[Fault]
Rule = Callable[[Mapping[str, Any]], Iterator[Fault]]
"""A rule over several fields of one mapping; yields paths relative to it."""

_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "a boolean"),
    (int, "a number"),
    (float, "a number"),
    (str, "a string"),
    (list, "a list"),
    (dict, "a mapping"),
)


def kind_of(value: Any) -> str:
    """What *value* is, with its text if that is short: ``a number (80)``."""
    if value is None:
        return "null"
    name = next((name for type_, name in _KINDS if isinstance(value, type_)), type(value).__name__)
    if isinstance(value, (list, dict)):
        return name
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = f'"{text}"' if isinstance(value, str) else text
    return f"{name} ({text if len(text) <= 40 else text[:37] + '...'})"


class Spec(Protocol):
    """What one value may be."""

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """*value* as it is stored; appends to *faults* what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Anything:
    """A part that Cirri does not read: kept as it is."""

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """*value* itself."""
        return value


@dataclass(frozen=True, slots=True)
class Text:
    """A string."""

    pattern: re.Pattern[str] | None = None
    allowed: str = ""
    """What *pattern* means, for people: the end of "... ; allowed: "."""
    choices: tuple[str, ...] = ()
    low: int = 0
    """Least length."""
    high: int = 0
    """Greatest length; 0: no limit."""
    test: Callable[[str], str] | None = None
    """Says what is wrong with a string, "" if nothing."""

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """*value*; a number or boolean is refused with the advice to quote it."""
        if not isinstance(value, str):
            quoted = (
                f'; write "{str(value).lower()}" in quotes' if isinstance(value, (bool, int, float)) else ""
            )
            faults.append((path, f"must be a string, not {kind_of(value)}{quoted}"))
        elif complaint := self._complaint(value):
            faults.append((path, complaint))
        return value

    def _complaint(self, value: str) -> str:
        shown = f'"{value}"' if len(value) <= 80 else f'"{value[:77]}..."'
        if self.choices and value not in self.choices:
            hint = suggestion(value, self.choices)
            return f"{shown} is not allowed{hint}; allowed: {listed(self.choices)}"
        if len(value) < self.low:
            return "must not be empty"
        if self.high and len(value) > self.high:
            return f"{shown} has {len(value)} characters; allowed: at most {self.high}"
        if self.pattern is not None and not self.pattern.fullmatch(value):
            return f"{shown} is not allowed; allowed: {self.allowed}"
        return self.test(value) if self.test is not None else ""


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number within *low* and *high*."""

    low: int = 0
    high: int = 2**31 - 1

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """*value*."""
        if isinstance(value, bool) or not isinstance(value, int):
            faults.append((path, f"must be a whole number, not {kind_of(value)}"))
        elif not self.low <= value <= self.high:
            faults.append((path, f"{value} is out of range; allowed: {self.low} to {self.high}"))
        return value


@dataclass(frozen=True, slots=True)
class Boolean:
    """true or false."""

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """*value*."""
        if not isinstance(value, bool):
            faults.append((path, f"must be true or false, not {kind_of(value)}"))
        return value


@dataclass(frozen=True, slots=True)
class IntegerOrText:
    """A number or a string, such as a port or its name."""

    number: Spec
    text: Spec

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """*value*."""
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            faults.append((path, f"must be a number or a name, not {kind_of(value)}"))
            return value
        return (self.text if isinstance(value, str) else self.number).read(value, path, faults)


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    of: Spec
    low: int = 0
    high: int = 0
    """Greatest length; 0: no limit."""
    key: str = ""
    """Field whose value no two items share."""

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """*value*, each item read."""
        if not isinstance(value, list):
            faults.append((path, f"must be a list, not {kind_of(value)}"))
            return value
        if len(value) < self.low:
            faults.append(
                (path, "must have at least one item" if self.low == 1 else f"needs {self.low} items")
            )
        if self.high and len(value) > self.high:
            faults.append((path, f"has {len(value)} items; allowed: at most {self.high}"))
        if self.key:
            faults += _repeated(value, self.key, path)
        return [self.of.read(item, (*path, i), faults) for i, item in enumerate(value)]


def _repeated(items: list[Any], key: str, path: Path) -> Iterator[Fault]:
    seen: dict[Any, int] = {}
    for i, item in enumerate(items):
        name = item.get(key) if isinstance(item, dict) else None
        if not isinstance(name, (str, int)):
            continue
        if name in seen:
            yield (*path, i, key), f'"{name}" is already used by item {seen[name]}'
        seen.setdefault(name, i)


@dataclass(frozen=True, slots=True)
class MapOf:
    """A mapping with free keys, such as labels."""

    value: Spec
    key: Callable[[str], str] | None = None
    """Says what is wrong with a key, "" if nothing."""

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """*value*, each entry read."""
        if not isinstance(value, dict):
            faults.append((path, f"must be a mapping, not {kind_of(value)}"))
            return value
        for name in value:
            if not isinstance(name, str):
                faults.append((path, f"a key must be a string, not {kind_of(name)}"))
            elif self.key is not None and (complaint := self.key(name)):
                faults.append(((*path, name), complaint))
        return {name: self.value.read(item, (*path, name), faults) for name, item in value.items()}


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping whose fields are known."""

    fields: Mapping[str, Spec]
    required: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()
    """Accepted and not kept."""
    rules: tuple[Rule, ...] = ()
    """Checked only when the fields by themselves are right."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Fields that belong elsewhere, and the sentence that says so."""

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """*value* without nulls and dropped fields, with defaults."""
        if not isinstance(value, dict):
            faults.append((path, f"must be a mapping, not {kind_of(value)}"))
            return value
        before = len(faults)
        found = {}
        for name, item in value.items():
            if name in self.dropped:
                continue
            if name not in self.fields:
                faults.append(((*path, name), self._unknown(name)))
            elif item is not None:
                found[name] = self.fields[name].read(item, (*path, name), faults)
        for name in self.required:
            if name not in found and not any(p[: len(path) + 1] == (*path, name) for p, _ in faults[before:]):
                faults.append(((*path, name), "required, but missing"))
        if len(faults) == before:
            for rule in self.rules:
                faults += (((*path, *where), message) for where, message in rule(found))
        return {**{k: v for k, v in self.defaults.items() if k not in found}, **found}

    def _unknown(self, name: Any) -> str:
        if name in self.absent:
            return self.absent[name]
        if not isinstance(name, str):
            return f"a field name must be a string, not {kind_of(name)}"
        return f"unknown field{suggestion(name, self.fields)}; allowed here: {listed(sorted(self.fields))}"


def with_fields(base: Fields, **changes: Any) -> Fields:
    """*base* with *changes* to its attributes (``fields`` are added to the ones it has)."""
    merged = {**base.fields, **changes.pop("fields", {})}
    attributes = {
        "required": base.required,
        "defaults": base.defaults,
        "dropped": base.dropped,
        "rules": base.rules,
        "absent": base.absent,
        **changes,
    }
    return Fields(merged, **attributes)


ANYTHING = Anything()
BOOLEAN = Boolean()
TEXT = Text()


def unread(names: str) -> dict[str, Spec]:
    """Fields that Cirri accepts and does not read; *names* separated by blanks."""
    return dict.fromkeys(names.split(), ANYTHING)
