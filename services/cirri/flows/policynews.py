"""What becomes of policies, as the observer API tells it.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cirri.hubble.messages import AgentEvent as Message
from cirri.hubble.messages import AgentEventType
from cirri.hubble.source import AgentEvent
from cirri.model import Resource

KINDS = ("NetworkPolicy", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")
"""Those of ``cirri.manifests.POLICY_KINDS``, which brings every schema along."""
_DERIVED, _NAME, _NAMESPACE = (
    f"k8s:io.cilium.k8s.policy.{key}" for key in ("derived-from", "name", "namespace")
)


class PolicyNews:
    """Remembers what was told, to say what is new: nothing is the first time, which is how things were."""

    def __init__(self) -> None:
        self._known: dict[str, Resource] = {}
        self._begun = False

    def news(
        self, changed: Iterable[str], policies: Mapping[str, Resource], revision: int, time_ns: int
    ) -> list[AgentEvent]:
        """Of keys that *changed*, which are so now; *revision* of the policies."""
        found = []
        for key in sorted(changed):
            before, now = self._known.pop(key, None), policies.get(key)
            found += policy_events(before, now, revision)
            if now is not None:
                self._known[key] = now
        begun, self._begun = self._begun, True
        return [AgentEvent(time_ns, event) for event in found] if begun else []


def policy_events(before: Resource | None, now: Resource | None, revision: int) -> list[Any]:
    """What became of a policy object; its status and its annotations are no event."""
    if now is None:
        return [] if before is None else [_policy(AgentEventType.POLICY_DELETED, before, revision)]
    if before is not None and _rules(before) == _rules(now):
        return []
    return [_policy(AgentEventType.POLICY_UPDATED, now, revision)]


def _rules(policy: Resource) -> list[Any]:
    one, several = policy.manifest.get("spec"), policy.manifest.get("specs")
    return [*([one] if one is not None else []), *(several if isinstance(several, list) else [])]


def _policy(kind: int, policy: Resource, revision: int) -> Any:
    event = Message(type=kind)
    told = event.policy_update
    told.labels.append(f"{_DERIVED}={policy.kind}")
    told.labels.append(f"{_NAME}={policy.name}")
    if policy.namespace:
        told.labels.append(f"{_NAMESPACE}={policy.namespace}")
    told.rule_count, told.revision = len(_rules(policy)), revision
    return event
