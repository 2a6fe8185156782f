"""Regular expressions that users write: RE2, so that none can take longer than its input is long."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import re2

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


@lru_cache(maxsize=4096)
def _compiled(expression: str) -> Any:
    return re2.compile(expression, options=_OPTIONS)
