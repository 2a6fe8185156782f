"""What people are told of listeners and rules.  Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from cirri.l7proxy.listening import Report
from cirri.l7proxy.resources import Wanted
from cirri.model.request import L7Listener, L7Rule
from cirri.proxies import Listener


def listener_status(one: Listener, wanted: Wanted, reported: Report) -> L7Listener:
    """How *one* is."""
    why = wanted.problems.get(one.port) or wanted.refused.get(one.port, "")
    state = "failed" if one.port in wanted.refused else "pending"
    if one.port in reported.ports:
        state = "serving" if one.serves else "retiring"
    return L7Listener(
        port=one.port, direction=one.direction, identity=one.subject, kind=one.kind,
        state=state, rules=len(_allows(one)), message=why,
    )  # fmt: skip


def listener_rules(one: Listener) -> tuple[L7Rule, ...]:
    """What *one* lets pass, a line for each kind of request."""
    head: dict[str, Any] = {
        "port": one.port,
        "direction": one.direction,
        "identity": one.subject,
        "kind": one.kind,
    }
    told = _told(one)
    if told.get("any"):
        return (L7Rule(**head),)
    found = []
    for allow in _allows(one):
        tls = tuple(key for key in ("terminating", "originating") if key in allow)
        entries = allow.get("requests", [{}])
        names = tuple(allow.get("serverNames", ()))
        found += [
            L7Rule(**head, cookie=allow.get("cookie", 0), server_names=names, tls=tls, request=entry)
            for entry in entries
        ]
    return tuple(found)


def _told(one: Listener) -> dict[str, Any]:
    try:
        told = msgspec.json.decode(one.rules)
    except msgspec.DecodeError:
        return {}
    return told if isinstance(told, dict) else {}


def _allows(one: Listener) -> list[dict[str, Any]]:
    return [each for each in _told(one).get("allows", ()) if isinstance(each, dict)]
