"""Events of the node out of what the bus says of policies."""

from __future__ import annotations

from msgspec.structs import replace

from cirri.flows.policynews import KINDS, PolicyNews
from cirri.hubble.messages import AgentEventType
from cirri.hubble.source import AgentEvent
from cirri.manifests import POLICY_KINDS
from cirri.model import Resource

RULE = Resource(kind="CiliumNetworkPolicy", namespace="shop", name="rule", manifest={"spec": {"ingress": []}})


def told(events: list[AgentEvent]) -> list[str]:
    return [AgentEventType.Name(each.event.type) for each in events]


def change(news: PolicyNews, policy: Resource | None) -> list[AgentEvent]:
    return news.news(["rule"], {} if policy is None else {"rule": policy}, 42, 1000)


def test_every_kind_of_policy_is_followed() -> None:
    assert set(KINDS) == POLICY_KINDS


def test_how_things_were_is_no_event() -> None:
    assert change(PolicyNews(), RULE) == []


def test_policies() -> None:
    news = PolicyNews()
    news.news([], {}, 1, 1)
    (updated,) = change(news, RULE)
    said = updated.event.policy_update
    assert (updated.time_ns, said.revision, said.rule_count) == (1000, 42, 1)
    assert list(said.labels) == [
        "k8s:io.cilium.k8s.policy.derived-from=CiliumNetworkPolicy",
        "k8s:io.cilium.k8s.policy.name=rule",
        "k8s:io.cilium.k8s.policy.namespace=shop",
    ]
    assert change(news, replace(RULE, manifest={**RULE.manifest, "status": {"x": 1}})) == []
    assert told(change(news, replace(RULE, manifest={"specs": [{}, {}]}))) == ["POLICY_UPDATED"]
    assert told(change(news, None)) == ["POLICY_DELETED"]
