"""What is said about each policy object: whether it is valid, and what holds if it is not.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from cirri.engine import Finding
from cirri.model import PolicyCondition

VALID = "Policy validation succeeded"

LONGEST = 32_768
"""Characters that a condition's message may have in Kubernetes."""


def condition(
    key: str,
    revision: int,
    *,
    faults: Iterable[Finding] = (),
    gaps: Iterable[Finding] = (),
    in_force: int = 0,
    before: PolicyCondition | None = None,
    now: str,
) -> PolicyCondition:
    """About the object *key*, whose newest version is at *revision*.

    *faults*: what is wrong with that version; *gaps*: what of it is not enforced; *in_force*: revision of the
    version that holds, 0 if none does; *before*: what was said last; *now*: RFC 3339, UTC.
    """
    wrong = _joined(faults)
    if wrong:
        message = f"{wrong}; {_instead(revision, in_force)}"
    else:
        left_out = _joined(gaps)
        message = f"{VALID}; not enforced: {left_out}" if left_out else VALID
    if len(message) > LONGEST:
        message = message[: LONGEST - 1] + "…"
    since = before.since if before is not None and before.valid == (not wrong) else now
    return PolicyCondition(object=key, valid=not wrong, message=message, since=since, revision=revision)


def rfc3339(seconds: float) -> str:
    """A moment of Unix time as people and Kubernetes write it, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _instead(revision: int, in_force: int) -> str:
    """What holds of an object that is not valid at *revision*."""
    if not in_force:
        return "nothing of it is in force"
    if in_force == revision:
        return "what it meant under the earlier configuration stays in force"
    return f"the earlier version (revision {in_force}) stays in force"


def _joined(findings: Iterable[Finding]) -> str:
    return "; ".join(f"{one.path}: {one.sentence}" for one in findings)
