"""Conditions of tracing policies.  Pure: time is an argument.

What can be served is read from the policy alone, so every node says the same of it, and whichever is there
writes it.  A node where the kernel refused what could be served says that beside it, under its own name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cirri.manifests.conditions import with_conditions
from cirri.model import Resource
from cirri.model.runtimeevents import PolicyState

SERVED, FAILED_ON = "cirri.io/Served", "cirri.io/FailedOn."
Manifest = dict[str, Any]


def title_of(policy: Resource) -> str:
    """``NAME`` or ``NAMESPACE/NAME``, as states name it."""
    return policy.name if policy.kind == "TracingPolicy" else f"{policy.namespace}/{policy.name}"


def changed(
    policies: Iterable[Resource], states: Mapping[str, PolicyState], node: str, now: str
) -> Iterator[Manifest]:
    """Each policy whose conditions are others than it says, with the new ones.

    Args:
        policies: of both kinds.
        states: on *node*, by title; of who has none nothing is said.
        now: RFC 3339.
    """
    for policy in policies:
        if (state := states.get(title_of(policy))) is None:
            continue
        before = policy.manifest.get("status") or {}
        status = with_conditions(
            before, _conditions(state, FAILED_ON + node), now, replaced=(FAILED_ON + node,)
        )
        if status["conditions"] != list(before.get("conditions") or ()):
            yield {**policy.manifest, "status": status}


def _conditions(state: PolicyState, failed_here: str) -> Iterator[dict[str, str]]:
    if state.state == "not served":
        yield {"type": SERVED, "status": "False", "reason": "NotServed", "message": state.why}
        return
    hooks = "; ".join(f"{name} at {hook}" for name, hook in sorted(state.hooks.items()))
    yield {"type": SERVED, "status": "True", "reason": "Hooks", "message": hooks}
    if state.state == "failed":
        yield {"type": failed_here, "status": "True", "reason": "KernelOrCompiler", "message": state.why}
