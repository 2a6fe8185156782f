"""What a listener's ``rules`` say, read strictly: what is not understood is not allowed."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from cirri.engine.regex import complaint, literal
from cirri.engine.requests import ANY_REQUEST

LONGEST_EXPRESSION = 8192
"""Characters of one regular expression; its program is bounded by RE2 itself."""


class SecretName(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Secret."""

    namespace: str
    name: str

    @property
    def key(self) -> str:
        """``NAMESPACE/NAME``."""
        return f"{self.namespace}/{self.name}"


class HeaderMatch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A header that is to have a value, and what is done if it has not."""

    name: str
    value: str | None = None
    secret: SecretName | None = None
    mismatch: Literal["", "LOG", "ADD", "DELETE", "REPLACE"] = ""


class Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests that are alike; what is not given may be anything."""

    method: str = ""
    path: str = ""
    host: str = ""
    headers: tuple[str, ...] = ()
    headerMatches: tuple[HeaderMatch, ...] = ()  # noqa: N815 - as in the manifest


class Tls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One end of TLS: the Secret, and the keys in it."""

    secret: SecretName
    certificate: str = ""
    privateKey: str = ""  # noqa: N815 - as in the manifest
    trustedCA: str = ""  # noqa: N815 - as in the manifest


class Allow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule: connections wanted with one of the names, and of those the requests."""

    requests: tuple[Entry, ...] | UnsetType = UNSET
    """Not given: every one."""
    serverNames: tuple[str, ...] = ()  # noqa: N815 - as in the manifest
    terminating: Tls | None = None
    originating: Tls | None = None
    cookie: int = 0
    log: str = ""


class Rules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that may pass; nothing else may."""

    any: bool = False
    """Everything may."""
    allows: tuple[Allow, ...] = ()
    requests: tuple[()] = ()
    """``{"requests": []}`` is how the datapath service says that nothing may."""


def for_all(rules: Rules) -> Allow:
    """What everything passes by, where everything may: with the TLS that some rule asks for."""
    for allow in rules.allows:
        if allow.terminating or allow.originating:
            return Allow(terminating=allow.terminating, originating=allow.originating)
    return Allow()


class Reading(Struct, frozen=True):
    """Rules, and why there are fewer than were meant."""

    rules: Rules
    problem: str = ""


@lru_cache(maxsize=1024)
def read(text: str) -> Reading:
    """What *text*, canonical JSON, says.  What cannot be read allows nothing."""
    try:
        rules = msgspec.json.decode(text, type=Rules)
    except (msgspec.DecodeError, UnicodeError) as error:
        return Reading(Rules(), f"its rules cannot be read: {error}")
    allows = []
    problem = ""
    for allow in rules.allows:
        entries: list[Entry] = []
        for entry in allow.requests or ():
            wrong = next(filter(None, map(_wrong, (entry.method, entry.path, entry.host))), "")
            problem = problem or wrong
            if not wrong:
                entries.append(entry)
        given = allow.requests is not UNSET
        allows.append(msgspec.structs.replace(allow, requests=tuple(entries)) if given else allow)
    return Reading(msgspec.structs.replace(rules, allows=tuple(allows)), problem)


@lru_cache(maxsize=65536)
def _wrong(expression: str) -> str:
    if len(expression) > LONGEST_EXPRESSION:
        long = f"has {len(expression)} characters; at most {LONGEST_EXPRESSION} are allowed"
        return f"the expression {expression[:40] + '...'!r} {long}"
    why = "" if literal(expression) else complaint(expression)
    return f"{expression!r} is not a regular expression of RE2: {why}" if why else ""


assert msgspec.json.decode(ANY_REQUEST, type=Entry) == Entry()
