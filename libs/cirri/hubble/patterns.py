"""Patterns of names, as filters spell them: ``*`` is any part of a name, dots included.  Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_NAME = r"(?:[-0-9_a-z]+(?:\.[-0-9_a-z]+)*)"
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")
_STAR = "[-.0-9a-z]*"


def fqdn_pattern(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether one of *patterns* describes a DNS name.  Raises: ValueError, with why it is no pattern."""
    return _one_of(_fqdn(pattern) for pattern in patterns)


def node_pattern(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether one of *patterns* describes a node's name, CLUSTER/NODE.

    ``NODE`` alone is of any cluster; ``CLUSTER/`` is any of its nodes.  Raises: ValueError.
    """
    return _one_of(_node(pattern) for pattern in patterns)


def _one_of(expressions: object) -> Callable[[str], bool]:
    whole = re.compile("|".join(f"(?:{each})" for each in expressions))  # type: ignore[attr-defined]
    return lambda name: whole.fullmatch(name) is not None


def _fqdn(pattern: str) -> str:
    text = pattern.strip().removesuffix(".").lower()
    if not text:
        raise ValueError("empty pattern")
    if text.endswith("."):
        raise ValueError(f'"{pattern}": multiple trailing dots in pattern')
    parts = []
    for letter in text:
        if letter == ".":
            parts.append(r"\.")
        elif letter == "*":
            if parts[-1:] != [_STAR]:
                parts.append(_STAR)
        elif letter in _LETTERS:
            parts.append(letter)
        else:
            raise ValueError(f'"{pattern}": {letter!r} cannot be in a pattern')
    return "".join(parts)


def _node(pattern: str) -> str:
    if not pattern:
        raise ValueError("empty pattern")
    cluster, slash, node = pattern.partition("/")
    if "/" in node:
        raise ValueError(f'"{pattern}": too many slashes in pattern')
    if not slash:
        cluster, node = "", pattern
    return "/".join(_fqdn(part) if part else _NAME for part in (cluster, node))
