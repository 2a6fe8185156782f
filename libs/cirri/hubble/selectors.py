"""Label selectors as text: ``k8s:app in (a, b), !reserved:host, env!=test``.  Pure.

Kubernetes' grammar, and before a key the label's source: ``k8s:``, ``reserved:``, ``any:`` (as without).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from cirri.labels import Label

_TOKENS = re.compile(r"\s*(?:(?P<sign>==|!=|[=!<>(),])|(?P<word>[^\s=!<>(),]+))")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_ANY = "any"

Labels = Mapping[tuple[str, str], str]
"""(source, key) -> value; under source ``any`` also, once for each key."""


class Requirement(NamedTuple):
    """One condition on a label."""

    source: str
    key: str
    operator: str
    """``exists``, ``!``, ``in``, ``notin``, ``<``, ``>``."""
    values: frozenset[str] = frozenset()

    def holds(self, labels: Labels) -> bool:
        """Whether *labels* meet it."""
        value = labels.get((self.source, self.key))
        match self.operator:
            case "exists":
                return value is not None
            case "!":
                return value is None
            case "in":
                return value in self.values
            case "notin":
                return value is None or value not in self.values
        (bound,) = self.values
        try:
            number = int(value or "")
        except ValueError:
            return False
        return number < int(bound) if self.operator == "<" else number > int(bound)


def selector(text: str) -> Callable[[Iterable[str]], bool]:
    """Whether labels (``SOURCE:KEY=VALUE``) meet all of *text*.  Raises: ValueError, with why it is none."""
    requirements = tuple(_Parser(text).requirements())

    def meets(labels: Iterable[str]) -> bool:
        known: dict[tuple[str, str], str] = {}
        for label in map(Label.parse, labels):
            known[label.source, label.key] = label.value
            known.setdefault((_ANY, label.key), label.value)
        return all(requirement.holds(known) for requirement in requirements)

    return meets


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, bool]] = []
        place, end = 0, len(text.rstrip())
        while place < end:
            found = _TOKENS.match(text, place)
            if found is None:
                raise ValueError(f'"{text}": cannot be read from "{text[place:]}" on')
            self._tokens.append((found["sign"] or found["word"], bool(found["word"])))
            place = found.end()
        self._at = 0

    def requirements(self) -> Iterable[Requirement]:
        """All of them; none in an empty text, which every label meets."""
        while self._tokens:
            yield self._requirement()
            if self._at == len(self._tokens):
                return
            self._expect(",")

    def _requirement(self) -> Requirement:
        absent = self._skip("!")
        source, key = self._key()
        if absent:
            return Requirement(source, key, "!")
        sign, _ = self._next()
        match sign:
            case "" | ",":
                self._at -= sign == ","
                return Requirement(source, key, "exists")
            case "=" | "==":
                return Requirement(source, key, "in", frozenset((self._value(),)))
            case "!=":
                return Requirement(source, key, "notin", frozenset((self._value(),)))
            case "in" | "notin":
                return Requirement(source, key, sign, frozenset(self._values()))
            case "<" | ">":
                value = self._value()
                if not re.fullmatch("[+-]?[0-9]+", value):
                    raise ValueError(f'"{self._text}": {sign} needs a number, not "{value}"')
                return Requirement(source, key, sign, frozenset((value,)))
        raise ValueError(f'"{self._text}": unexpected "{sign}" after "{key}"')

    def _key(self) -> tuple[str, str]:
        token, is_word = self._next()
        if not is_word:
            raise ValueError(
                f'"{self._text}": a label\'s key is missing' + (f' before "{token}"' if token else "")
            )
        source, colon, key = token.partition(":")
        if not colon:
            source, key = _ANY, token
        prefix, slash, name = key.rpartition("/")
        if not _NAME.fullmatch(name) or (slash and not (_PREFIX.fullmatch(prefix) and len(prefix) <= 253)):
            raise ValueError(f'"{self._text}": "{token}" is no label\'s key')
        return source or _ANY, key

    def _value(self) -> str:
        """Perhaps empty: ``key=``."""
        if self._at == len(self._tokens) or not self._tokens[self._at][1]:
            return ""
        value, _ = self._next()
        if not _VALUE.fullmatch(value):
            raise ValueError(f'"{self._text}": "{value}" is no label\'s value')
        return value

    def _values(self) -> Iterable[str]:
        self._expect("(")
        while True:
            yield self._value()
            if not self._skip(","):
                break
        self._expect(")")

    def _next(self) -> tuple[str, bool]:
        """The next token, and whether it is a word; ("", False) at the end."""
        if self._at == len(self._tokens):
            return "", False
        self._at += 1
        return self._tokens[self._at - 1]

    def _skip(self, sign: str) -> bool:
        there = self._at < len(self._tokens) and self._tokens[self._at] == (sign, False)
        self._at += there
        return there

    def _expect(self, sign: str) -> None:
        if not self._skip(sign):
            found, _ = self._next()
            raise ValueError(
                f'"{self._text}": "{sign}" expected' + (f', not "{found}"' if found else " at the end")
            )
