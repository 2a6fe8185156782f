"""How Envoy is asked what a rule asks: of a method, a path, a host, headers, a server name.

Envoy compares ``:path`` here and not what it calls the path, which is without the query.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from cirri.engine.names import server_name_expression
from cirri.engine.regex import literal
from cirri.l7proxy.rules import Entry, HeaderMatch

SERVER_NAME = "cirri.server_name"
"""The filter state that holds the name a TLS connection was wanted with."""

_NAME = re.compile(r"[-!#$%&'*+.^_|~0-9A-Za-z`]+")
_UNPRINTABLE = re.compile(r"[\x00\n\r]")
_MATCH = dict[str, Any]


@lru_cache(maxsize=8192)
def expression_match(expression: str) -> _MATCH:
    """Envoy's ``StringMatcher`` for the whole of a text; a plain text needs no automaton."""
    if (found := literal(expression)) is not None:
        text, open_ended = found
        return {"prefix": text} if open_ended else {"exact": text}
    return {"safe_regex": {"regex": expression}}


def server_name_match(names: Sequence[str]) -> _MATCH:
    """Envoy's ``StringMatcher`` for any of the *names* of ``serverNames``."""
    either = "|".join(server_name_expression(name.lower()) for name in names)
    return {"safe_regex": {"regex": f"(?i:{either})"}}


def header_name(name: str) -> str:
    """As Envoy knows the header called *name*; "" if none can be called so."""
    lower = name.lower()
    if lower == "host":
        return ":authority"
    return lower if _NAME.fullmatch(lower) else ""


def has_header(name: str, value: str | None) -> _MATCH | None:
    """Envoy's ``HeaderMatcher``: the header is there, with *value* if that is given.  None: it never is."""
    known = header_name(name)
    if not known or (value is not None and _UNPRINTABLE.search(value)):
        return None
    if value is None:
        return {"name": known, "present_match": True}
    return {"name": known, "string_match": {"exact": value}}


def fixed_matches(entry: Entry) -> list[_MATCH] | None:
    """What *entry* asks of every request, apart from ``headerMatches``.  None: nothing is like that."""
    found = []
    for header, expression in ((":method", entry.method), (":path", entry.path), (":authority", entry.host)):
        if expression:
            found.append({"name": header, "string_match": expression_match(expression)})
    for text in entry.headers:
        name, blank, value = text.partition(" ")
        match = has_header(name.removesuffix(":"), value if blank else None)
        if match is None:
            return None
        found.append(match)
    return found


def expected(wanted: HeaderMatch, secrets: Mapping[str, str]) -> str | None:
    """The value that the header must have, "" for any.  None: it is in a secret that cannot be read."""
    value = wanted.value if wanted.value is not None else (None if wanted.secret else "")
    return secrets.get(wanted.secret.key, value) if wanted.secret else value
