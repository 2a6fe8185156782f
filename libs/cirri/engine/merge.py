"""Rules for the same peers and ports become one: what they ask for together, or why that cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import msgspec

from cirri.engine.cilium import CLUSTERWIDE
from cirri.engine.payload import NAMESPACED_CONFIG
from cirri.engine.requests import any_request, canonical
from cirri.engine.rule import PLAIN, Payload, PolicyConflict
from cirri.model import Origin

T = TypeVar("T")

PRIORITIES = {"": 0, "http": 27, "kafka": 22, "generic": 17, "tls": 12, "dns": 7, "listener": 2}
"""Of redirects, larger wins; a listener with a priority p of its own has 128 - p."""

_ENCRYPTABLE = ("http", "kafka", "generic")
"""Kinds that TLS settings may be added to; the stream must be decrypted to read their requests."""


class Asked(NamedTuple):
    """What one rule asks for."""

    payload: Payload
    origin: Origin


def merge(asked: Sequence[Asked], place: str) -> Payload:
    """What rules for the same peers and ports ask for together; *place* says for people which.

    The order of *asked*, which is not empty, decides only which rules a PolicyConflict names.
    """
    if all(one.payload == PLAIN for one in asked):
        return PLAIN
    for one in asked:
        if one.payload.listener.startswith(f"{NAMESPACED_CONFIG}/") and one.origin.kind == CLUSTERWIDE:
            raise _conflict("C6", place, "a cluster-wide policy", _words(one.payload), (one,))
    auth = _one_value(asked, "C4", place, "authentication", lambda payload: payload.auth)
    terminating = _one_value(asked, "C3", place, "terminatingTLS", lambda payload: payload.terminating)
    originating = _one_value(asked, "C3", place, "originatingTLS", lambda payload: payload.originating)
    best = _one_kind(asked, place).payload
    names = {name for one in asked for name in one.payload.server_names}
    if names and best.kind in _ENCRYPTABLE and not terminating:
        pair = [next(one for one in asked if one.payload.requests),
                next(one for one in asked if one.payload.server_names)]  # fmt: skip
        raise _conflict("C5", place, f"{_words(best)} without terminatingTLS", "serverNames", pair)
    requests = {request for one in asked for request in one.payload.requests}
    if requests and any(not one.payload.kind for one in asked):
        requests.add(any_request(best.kind))
    return replace(
        best,
        requests=tuple(sorted(requests)),
        server_names=tuple(sorted(names)),
        terminating=terminating,
        originating=originating,
        auth=auth,
    )


def widened(payload: Payload) -> Payload:
    """*payload* where nothing is refused for want of a rule: its requests are only looked at."""
    if not payload.requests:
        return payload
    return replace(payload, requests=tuple(sorted({*payload.requests, any_request(payload.kind)})))


def priority(payload: Payload) -> int:
    """Of the redirect, as :attr:`cirri.model.Rule.priority`."""
    return 128 - payload.listener_priority if payload.listener_priority else PRIORITIES[payload.kind]


def proxied(payload: Payload) -> str:
    """What the proxy is to know, as :attr:`cirri.model.Rule.l7`; "" if there is nothing."""
    said: dict[str, Any] = {
        "requests": [msgspec.json.decode(one) for one in payload.requests],
        "parser": payload.parser,
        "serverNames": payload.server_names,
        "terminatingTLS": payload.terminating and msgspec.json.decode(payload.terminating),
        "originatingTLS": payload.originating and msgspec.json.decode(payload.originating),
        "listener": payload.listener,
    }
    given = {key: value for key, value in said.items() if value}
    return canonical(given) if given else ""


def _one_value(asked: Sequence[Asked], code: str, place: str, name: str, read: Callable[[Payload], T]) -> T:
    """What those say that say something, without contradiction."""
    said = [one for one in asked if read(one.payload)] or asked
    for one in said[1:]:
        value, other = read(said[0].payload), read(one.payload)
        if value != other:
            raise _conflict(code, place, f"{name} {value}", f"{name} {other}", (said[0], one))
    return read(said[0].payload)


def _one_kind(asked: Sequence[Asked], place: str) -> Asked:
    """The one whose kind, parser or listener all the others go along with."""
    best = max(asked, key=lambda one: priority(one.payload))
    for one in asked:
        code = ""
        if one.payload.kind and not _agree(one.payload, best.payload):
            code = "C1"
        elif one.payload.listener != best.payload.listener and priority(one.payload) == priority(
            best.payload
        ):
            code = "C2"
        if code:
            raise _conflict(code, place, _words(best.payload), _words(one.payload), (best, one))
    return best


def _agree(one: Payload, other: Payload) -> bool:
    """Whether one proxy can do what both ask for; which of two listeners is another question."""
    if one.kind == other.kind:
        return one.parser == other.parser
    return "tls" in {one.kind, other.kind} and bool({one.kind, other.kind} & set(_ENCRYPTABLE))


def _words(payload: Payload) -> str:
    match payload.kind:
        case "generic":
            return f"requests for parser {payload.parser}"
        case "tls":
            return "TLS settings"
        case "listener":
            priority_ = payload.listener_priority or "none"
            return f"listener {payload.listener} (priority {priority_})"
        case kind:
            return f"{kind} requests"


def _conflict(code: str, place: str, one: str, other: str, asked: Iterable[Asked]) -> PolicyConflict:
    return PolicyConflict(f"{place}: {one} and {other}", [each.origin for each in asked], code=code)
