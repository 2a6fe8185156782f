"""Regular expressions that users write: RE2, so that none can take longer than its input is long."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import re2

_PLAIN = re.compile(r"\^?((?:[^\\.+*?()\[\]{}|^$]|\\[^0-9A-Za-z\x80-\U0010ffff])*)(\.\*)?\$?", re.S)
"""Characters that stand for themselves, some of them behind a backslash, then perhaps anything."""
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


def literal(expression: str) -> tuple[str, bool] | None:
    """The text that *expression* stands for, and whether anything may follow it; None: it is not so plain."""
    found = _PLAIN.fullmatch(expression)
    if found is None:
        return None
    return re.sub(r"\\(.)", r"\1", found[1], flags=re.S), found[2] is not None


@lru_cache(maxsize=4096)
def _compiled(expression: str) -> Any:
    return re2.compile(expression, options=_OPTIONS)
