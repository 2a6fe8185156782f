"""Conditions in the status of an object.  Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

Manifest = dict[str, Any]


def with_conditions(
    status: Mapping[str, Any],
    conditions: Iterable[Mapping[str, str]],
    now: str,
    *,
    replaced: Collection[str] = (),
) -> Manifest:
    """*status* with *conditions*; each keeps the time at which its ``status`` became what it is.

    Conditions of other types stay, but for those whose type is one of *replaced*.  *now*: RFC 3339.
    """
    before = {each["type"]: each for each in status.get("conditions") or ()}
    mine = {}
    for each in conditions:
        old = before.get(each["type"], {})
        same = old.get("status") == each["status"] and "lastTransitionTime" in old
        mine[each["type"]] = {**each, "lastTransitionTime": old["lastTransitionTime"] if same else now}
    others = {kind: each for kind, each in before.items() if kind not in replaced}
    return {**status, "conditions": list({**others, **mine}.values())}
