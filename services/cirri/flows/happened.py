"""What happened to the node itself, as the observer API tells it: its endpoints, and policies.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cirri.hubble.messages import AgentEvent as Message
from cirri.hubble.messages import AgentEventType
from cirri.hubble.source import AgentEvent
from cirri.model import Endpoint, Resource

_DERIVED, _NAME, _NAMESPACE = (
    f"k8s:io.cilium.k8s.policy.{key}" for key in ("derived-from", "name", "namespace")
)


def started(time_ns: int) -> AgentEvent:
    """This process was."""
    event = Message(type=AgentEventType.AGENT_STARTED)
    event.agent_start.time.FromNanoseconds(time_ns)
    return AgentEvent(time_ns, event)


class Happened:
    """Remembers what was told, to say what is new: nothing is the first time, which is how things were."""

    def __init__(self) -> None:
        self._endpoints: dict[str, Endpoint] = {}
        self._policies: dict[str, Resource] = {}
        self._begun = False

    def news(
        self,
        endpoints: tuple[Iterable[str], Mapping[str, Endpoint]],
        policies: tuple[Iterable[str], Mapping[str, Resource]],
        revision: int,
        time_ns: int,
    ) -> list[AgentEvent]:
        """Of (keys that changed, what is there now); *revision* of the policies."""
        found = []
        for key in sorted(endpoints[0]):
            before, now = self._endpoints.get(key), endpoints[1].get(key)
            found += endpoint_events(before, now)
            _keep(self._endpoints, key, now)
        for key in sorted(policies[0]):
            old, new = self._policies.get(key), policies[1].get(key)
            found += policy_events(old, new, revision)
            _keep(self._policies, key, new)
        begun, self._begun = self._begun, True
        return [AgentEvent(time_ns, event) for event in found] if begun else []


def _keep(known: dict[str, Any], key: str, now: Any) -> None:
    if now is None:
        known.pop(key, None)
    else:
        known[key] = now


def endpoint_events(before: Endpoint | None, now: Endpoint | None) -> list[Any]:
    """What became of an endpoint."""
    found = []
    if before is None and now is not None:
        found.append(_endpoint(AgentEventType.ENDPOINT_CREATED, now))
    if before is not None and now is None:
        found.append(_endpoint(AgentEventType.ENDPOINT_DELETED, before))
    if now is not None:
        was_ready = before is not None and before.state == "ready"
        if now.error and (before is None or before.error != now.error):
            found.append(_regenerated(AgentEventType.ENDPOINT_REGENERATE_FAILURE, now))
        elif now.state == "ready" and not was_ready:
            found.append(_regenerated(AgentEventType.ENDPOINT_REGENERATE_SUCCESS, now))
    return found


def _endpoint(kind: int, endpoint: Endpoint) -> Any:
    event = Message(type=kind)
    told = event.endpoint_update
    told.id, told.namespace, told.pod_name = endpoint.id, endpoint.namespace, endpoint.pod
    told.labels.extend(endpoint.labels)
    return event


def _regenerated(kind: int, endpoint: Endpoint) -> Any:
    event = Message(type=kind)
    told = event.endpoint_regenerate
    told.id, told.error = endpoint.id, endpoint.error
    told.labels.extend(endpoint.labels)
    return event


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
