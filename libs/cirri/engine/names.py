"""Names and patterns: what DNS is asked for, and the server that TLS is wanted with."""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from cirri.engine.regex import matches

LONGEST = 255
"""Characters of a name or pattern."""

_NAME = re.compile(r"[-a-zA-Z0-9_.]+")
_PATTERN = re.compile(r"[-a-zA-Z0-9_.*]+")
_SERVER = re.compile(r"(\*{1,2}\.)?[-a-zA-Z0-9_.]+")

_CHARACTER = "[-a-z0-9_]"
_LABEL = f"{_CHARACTER}+"
_LABELS = f"{_LABEL}(?:[.]{_LABEL})*"


def name_complaint(text: str, *, pattern: bool) -> str:
    """Why *text* is no ``matchName`` (or, with *pattern*, no ``matchPattern``); "" if it is one."""
    if len(text) > LONGEST:
        return f"has {len(text)} characters; at most {LONGEST} are allowed"
    if (_PATTERN if pattern else _NAME).fullmatch(text):
        return ""
    also = ' and "*"' if pattern else ""
    return f'{text!r} is not a DNS name: letters, digits, "-", "_", "."{also} are allowed'


def server_name_complaint(text: str) -> str:
    """Why *text* is no item of ``serverNames``; "" if it is one."""
    if len(text) > LONGEST:
        return f"has {len(text)} characters; at most {LONGEST} are allowed"
    if _SERVER.fullmatch(text):
        return ""
    return f"{text!r} is not a server name; allowed are example.com, *.example.com, **.example.com"


def canonical_name(text: str) -> str:
    """*text* as names are compared: lower case, without the dot at the end.

    ``*.`` keeps its dot: the lone ``*`` means every name, ``*.`` those of one label.
    """
    lower = text.lower()
    return lower if lower in {".", "*."} else lower.removesuffix(".")


def entry_of(name: str) -> str:
    """The canonical JSON for *name*, a name or a pattern in canonical form."""
    # A pattern without "*" means what the name means.
    return msgspec.json.encode({"matchPattern" if "*" in name else "matchName": name}).decode()


def matches_pattern(pattern: str, name: str) -> bool:
    """Whether ``matchPattern: pattern`` matches the DNS name *name*.

    ``*`` stands for any characters of one label or none, a leading ``**.`` for one or more whole
    labels, the lone ``*`` for every name.
    """
    return pattern == "*" or matches(_pattern(canonical_name(pattern)), canonical_name(name))


def matches_server_name(pattern: str, name: str) -> bool:
    """Whether the ``serverNames`` item *pattern* matches *name*: ``*.`` is one label, ``**.`` one or more."""
    return matches(server_name_expression(pattern.lower()), name.lower())


@lru_cache(maxsize=4096)
def _pattern(pattern: str) -> str:
    rest = pattern.removesuffix(".")
    labels = ""
    if rest.startswith("**.") and rest != "**.":
        labels, rest = f"{_LABELS}[.]", rest.removeprefix("**.")
    return labels + re.sub("[*]+", f"{_CHARACTER}*", re.escape(rest).replace(r"\*", "*"))


@lru_cache(maxsize=4096)
def server_name_expression(pattern: str) -> str:
    """The regular expression of the lower-case names that the ``serverNames`` item *pattern* matches."""
    for wildcard, labels in (("**.", _LABELS), ("*.", _LABEL)):
        if pattern.startswith(wildcard):
            return f"{labels}[.]{re.escape(pattern.removeprefix(wildcard))}"
    return re.escape(pattern)
