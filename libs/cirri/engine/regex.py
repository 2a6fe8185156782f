"""Regular expressions that users write: RE2, so that none can take longer than its input is long."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import re2

_SPECIAL = re.compile(r"[\\.+*?()\[\]{}|^$]")
_CHARACTER = r"(?:[^\\.+*?()\[\]{}|^$]|\\[^0-9A-Za-z\x80-\U0010ffff])"
"""One that stands for itself, perhaps behind a backslash."""
_PLAIN = re.compile(rf"\^?({_CHARACTER}*)(\.\*)?\$?", re.S)
"""Characters that stand for themselves, then perhaps anything."""
_HEAD = re.compile(rf"\^?((?:{_CHARACTER}(?![?*{{]))*)", re.S)
"""Characters that stand for themselves, without one that need not be there."""
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[()|]", re.S)
_OPAQUE = re.compile(r"\\Q|\[:|\(\?[-A-Za-z]*\)")
"""Quoting and named classes, unknown to :data:`_TOKEN`, and flags: the star of ``b(?s)*`` is the b's."""
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False


def complaint(expression: str) -> str:
    """Why *expression* is no regular expression of RE2; "" if it is one."""
    try:
        _compiled(expression)
    except UnicodeEncodeError:
        return "not valid Unicode"
    except re2.error as error:
        (reason,) = error.args
        return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    return ""


def matches(expression: str, text: str) -> bool:
    """Whether *expression* describes the whole of *text*."""
    return _compiled(expression).fullmatch(text) is not None


def finds(expression: str, text: str) -> bool:
    """Whether *expression* describes some part of *text*."""
    return _compiled(expression).search(text) is not None


@lru_cache(maxsize=16384)
def literal(expression: str) -> tuple[str, bool] | None:
    """The text that *expression* stands for, and whether anything may follow it; None: it is not so plain."""
    if not _SPECIAL.search(expression):
        return expression, False  # as most are, and the longest
    found = _PLAIN.fullmatch(expression)
    if found is None:
        return None
    return _unescaped(found[1]), found[2] is not None


def beginning(expression: str) -> str:
    """A text that everything begins with that *expression* describes; "" where none is known.

    Not by RE2's ``possiblematchrange``: it is wrong about ``\\b``.
    """
    if (plain := literal(expression)) is not None:
        return plain[0]
    if _OPAQUE.search(expression) or _has_alternatives(expression):
        return ""
    found = _HEAD.match(expression)
    return _unescaped(found[1]) if found else ""


def _has_alternatives(expression: str) -> bool:
    """Whether all of it is one thing or another."""
    depth = 0
    for found in _TOKEN.finditer(expression):
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if found[0] == "|" and not depth:
            return True
    return False


def _unescaped(plain: str) -> str:
    return re.sub(r"\\(.)", r"\1", plain, flags=re.S)


@lru_cache(maxsize=4096)
def _compiled(expression: str) -> Any:
    return re2.compile(expression, options=_OPTIONS)
