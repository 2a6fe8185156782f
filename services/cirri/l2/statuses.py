"""Conditions of policies.  Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cirri.manifests.conditions import with_conditions
from cirri.model import Resource
from cirri.placement import faults
from cirri.placement.policies import BAD_INTERFACES, BAD_NODES, BAD_SERVICES

Manifest = dict[str, Any]
OURS = (BAD_SERVICES, BAD_NODES, BAD_INTERFACES)


def changed(policies: Iterable[Resource], now: str) -> Iterator[Manifest]:
    """Each policy whose conditions are others than it says, with the new ones.  *now*: RFC 3339.

    There is a condition, with status True, for each thing that cannot be understood, and none otherwise.
    """
    for policy in policies:
        before = policy.manifest.get("status") or {}
        found: dict[str, Manifest] = {}
        for kind, path, why in faults(policy):
            message = f"{'.'.join(map(str, path))}: {why}"
            found.setdefault(kind, {"type": kind, "status": "True", "reason": "error", "message": message})
        status = with_conditions(before, found.values(), now, replaced=OURS)
        if status["conditions"] != list(before.get("conditions") or ()):
            yield {**policy.manifest, "status": status}
