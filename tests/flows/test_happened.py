"""Events of the node out of what the bus says of endpoints and policies."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from cirri.flows.happened import Happened, started
from cirri.hubble.messages import AgentEventType
from cirri.hubble.source import AgentEvent
from cirri.model import Endpoint, Resource

WEB = Endpoint(
    node="n1", id=7, namespace="shop", pod="web", container_id="c", interface="lxc1", labels=("k8s:a=b",)
)
READY = replace(WEB, identity=5, state="ready")
RULE = Resource(kind="CiliumNetworkPolicy", namespace="shop", name="rule", manifest={"spec": {"ingress": []}})


def told(events: list[AgentEvent]) -> list[str]:
    return [AgentEventType.Name(each.event.type) for each in events]


class Bus:
    """Buckets whose changes are told as they are made."""

    def __init__(self) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self.policies: dict[str, Resource] = {}
        self.happened = Happened()

    def change(self, endpoint: Any = (), policy: Any = ()) -> list[AgentEvent]:
        for bucket, key, value in (
            (self.endpoints, "n1.7", endpoint),
            (self.policies, "rule", policy),
        ):
            if value is None:
                bucket.pop(key, None)
            elif value != ():
                bucket[key] = value
        keys = (["n1.7"] if endpoint != () else [], ["rule"] if policy != () else [])
        return self.happened.news((keys[0], self.endpoints), (keys[1], self.policies), 42, 1000)


def test_how_things_were_is_no_event() -> None:
    assert Bus().change(READY, RULE) == []
    assert started(5).event.agent_start.time.nanos == 5


def test_endpoints() -> None:
    bus = Bus()
    bus.change()
    (created,) = bus.change(WEB)
    assert created.time_ns == 1000
    update = created.event.endpoint_update
    assert (update.id, update.namespace, update.pod_name, list(update.labels)) == (
        7,
        "shop",
        "web",
        ["k8s:a=b"],
    )
    assert told(bus.change(READY)) == ["ENDPOINT_REGENERATE_SUCCESS"]
    assert told(bus.change(replace(READY, ingress_enforced=True))) == []
    (failed,) = bus.change(replace(READY, error="no room"))
    assert AgentEventType.Name(failed.event.type) == "ENDPOINT_REGENERATE_FAILURE"
    assert failed.event.endpoint_regenerate.error == "no room"
    assert told(bus.change(None)) == ["ENDPOINT_DELETED"]
    assert told(bus.change(READY)) == ["ENDPOINT_CREATED", "ENDPOINT_REGENERATE_SUCCESS"]


def test_policies() -> None:
    bus = Bus()
    bus.change()
    (updated,) = bus.change(policy=RULE)
    said = updated.event.policy_update
    assert (said.revision, said.rule_count) == (42, 1)
    assert list(said.labels) == [
        "k8s:io.cilium.k8s.policy.derived-from=CiliumNetworkPolicy",
        "k8s:io.cilium.k8s.policy.name=rule",
        "k8s:io.cilium.k8s.policy.namespace=shop",
    ]
    assert bus.change(policy=replace(RULE, manifest={**RULE.manifest, "status": {"x": 1}})) == []
    assert told(bus.change(policy=replace(RULE, manifest={"specs": [{}, {}]}))) == ["POLICY_UPDATED"]
    assert told(bus.change(policy=None)) == ["POLICY_DELETED"]
