"""What annotations say of a policy object: that it is only watched, or that it waits for a person."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from cirri.engine.rule import Findings, ObjectRule
from cirri.model import Resource
from cirri.model.resource import AUDIT_MODE, CONFIRM_BY


def annotated(rules: list[ObjectRule], resource: Resource, out: Findings) -> list[ObjectRule]:
    """*rules* of *resource* with what its annotations say."""
    found = (resource.manifest.get("metadata") or {}).get("annotations") or {}
    if not isinstance(found, dict) or not found.keys() & {AUDIT_MODE, CONFIRM_BY}:
        return rules
    audit = found.get(AUDIT_MODE)
    if audit not in {None, "enabled"}:
        out.fault(_path(AUDIT_MODE), f"{audit!r} is not allowed; allowed: enabled")
    confirm_by = _time(found.get(CONFIRM_BY), out)
    return [replace(rule, audit=audit == "enabled", confirm_by=confirm_by) for rule in rules]


def _time(value: Any, out: Findings) -> float:
    """Unix time in seconds of an RFC 3339 time; 0.0 if there is none."""
    if value is None:
        return 0.0
    try:
        found = datetime.fromisoformat(value)
        if found.tzinfo is None:
            raise ValueError
    except (TypeError, ValueError):
        out.fault(_path(CONFIRM_BY), f"{value!r} is not a time such as 2026-01-31T10:00:00Z")
        return 0.0
    return found.timestamp()


def _path(name: str) -> str:
    return f'metadata.annotations["{name}"]'
