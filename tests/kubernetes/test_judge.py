"""Conditions of Services and events about them, whatever it is that has changed."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

from cirri.kubernetes.applying import plan_status
from cirri.kubernetes.judge import AT_ONCE, Judge, condition_of
from cirri.kubernetes.state import Change, Key, key_of
from cirri.loadbalancer.complaints import Prefixes
from cirri.model import Resource

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DUAL: dict[str, Any] = {"clusterIPs": ["10.96.0.1", "fd00:10:96::1"]}


def svc(name: str = "web", created: str = "1", **spec: Any) -> Resource:
    meta = {"name": name, "uid": f"u-{name}", "generation": 1, "creationTimestamp": created}
    spec = {"clusterIP": "", "ports": [{"port": 80, "protocol": "TCP"}], **spec}
    return Resource(kind="Service", namespace="d", name=name, manifest={"metadata": meta, "spec": spec})


def part(*addresses: str, service: str = "web", node: str = "n1") -> Resource:
    family = "IPv6" if ":" in addresses[0] else "IPv4"
    manifest = {
        "metadata": {"labels": {"kubernetes.io/service-name": service}},
        "addressType": family,
        "endpoints": [{"addresses": [each], "nodeName": node} for each in addresses],
    }
    return Resource(kind="EndpointSlice", namespace="d", name=f"{service}-{family}", manifest=manifest)


def node(name: str) -> Resource:
    return Resource(kind="Node", name=name)


class World:
    """A cluster's objects, and what the judge makes of them."""

    def __init__(self, *objects: Resource) -> None:
        self.state: dict[Key, Resource] = {key_of(each): each for each in objects}
        self.judge = Judge(objects)
        self.now = NOW
        self.step()

    def put(self, *objects: Resource) -> None:
        for each in objects:
            key = key_of(each)
            if (old := self.state.get(key)) is not None and "status" in old.manifest:
                each = Resource(  # noqa: PLW2901
                    kind=each.kind, namespace=each.namespace, name=each.name,
                    manifest={**each.manifest, "status": old.manifest["status"]},
                )  # fmt: skip
            self.take(Change("configured" if key in self.state else "created", each))
        self.step()

    def drop(self, *objects: Resource) -> None:
        for each in objects:
            self.take(Change("deleted", each))
        self.step()

    def take(self, change: Change) -> None:
        if change.action == "deleted":
            self.state.pop(key_of(change.resource))
        else:
            self.state[key_of(change.resource)] = change.resource
        self.judge.note(change)

    def step(self) -> None:
        changes = self.judge.step(self.state, self.now)
        for change in changes:
            self.take(change)
        if not self.judge.dirty - {key_of(change.resource) for change in changes}:
            assert not self.judge.step(self.state, self.now), "a second look changes nothing"

    def said(self, name: str = "web") -> tuple[str, str]:
        found = condition_of(self.state[Key("Service", "d", name)])
        return str(found.get("status", "")), str(found.get("reason", ""))

    def events(self) -> list[tuple[str, str, int]]:
        found = [each.manifest for key, each in self.state.items() if key.kind == "Event"]
        return sorted((e["type"], e["reason"], e["count"]) for e in found)


def config(**data: str) -> Resource:
    manifest = {"data": {key.replace("_", "-"): value for key, value in data.items()}}
    return Resource(kind="ConfigMap", namespace="kube-system", name="cirri-config", manifest=manifest)


def test_what_was_never_wrong_has_no_condition() -> None:
    world = World(node("n1"), svc(), part("10.52.0.4"))
    assert world.said() == ("", "")
    assert not world.events()


def test_endpoints_come_and_go() -> None:
    world = World(node("n1"), svc(**DUAL), part("10.52.0.4"))
    assert world.said() == ("False", "NoBackendOfFamily")
    six = part("fd00::4")
    world.put(six)
    assert world.said() == ("True", "AsWritten")
    world.drop(six)
    assert world.said() == ("False", "NoBackendOfFamily")
    assert world.events() == [("Normal", "AsWritten", 1), ("Warning", "NoBackendOfFamily", 2)]


def test_others_that_ask_for_the_same() -> None:
    """Whoever is older has it, whatever comes first; the other one says so."""
    young, old = (
        svc(name, created, externalIPs=["203.0.113.7"]) for name, created in (("a", "2"), ("b", "1"))
    )
    world = World(young)
    assert world.said("a") == ("", "")
    world.put(old)
    assert (world.said("a"), world.said("b")) == (("False", "Conflict"), ("", ""))
    world.put(svc("b", "1", externalIPs=["203.0.113.8"]))
    assert world.said("a") == ("True", "AsWritten")
    world.put(old)
    assert world.said("a") == ("False", "Conflict")
    world.drop(old)
    assert world.said("a") == ("True", "AsWritten")
    world.put(svc("b", "3", externalIPs=["203.0.113.7"]))
    assert (world.said("a"), world.said("b")) == (("True", "AsWritten"), ("False", "Conflict"))


def test_nodes_and_configuration() -> None:
    world = World(
        node("n1"), svc(type="NodePort", ports=[{"port": 80, "nodePort": 30080}]), part("10.52.0.4")
    )
    world.put(config(node_port_range="31000,32000"))
    assert world.said() == ("False", "NodePortOutOfRange")
    world.put(config())
    assert world.said() == ("True", "AsWritten")
    world.put(node("n2"))
    world.drop(node("n1"))
    assert world.said() == ("False", "EndpointOnUnknownNode")
    world.put(config(routing_mode="nonsense", cluster_pool_ipv6_cidr="nonsense"))
    assert world.said() == ("False", "EndpointOnUnknownNode"), "a wrong configuration is no reason to fail"


def test_ranges_that_nodes_have() -> None:
    world = World(node("n1"), svc(), part("10.52.7.4"))
    assert world.said() == ("", ""), "who has which is not known"
    world.judge.note_ranges(Prefixes([ip_network("10.52.0.0/24")]))
    world.step()
    assert world.said() == ("False", "EndpointWithoutRoute")
    world.judge.note_ranges(Prefixes([ip_network("10.52.0.0/24"), ip_network("10.52.7.0/24")]))
    world.step()
    assert world.said() == ("True", "AsWritten")


def test_a_node_concerns_those_that_have_endpoints_there() -> None:
    services = [svc(name) for name in ("a", "b")]
    world = World(node("n1"), node("n2"), *services, part("10.52.0.4", service="a", node="n2"))
    world.take(Change("deleted", node("n2")))
    assert world.judge.dirty == {key_of(services[0])}
    world.step()
    assert (world.said("a"), world.said("b")) == (("False", "EndpointOnUnknownNode"), ("", ""))
    world.take(Change("deleted", node("n1")))
    assert world.judge.dirty == {key_of(each) for each in services}


def test_many_services_are_looked_at_in_turns() -> None:
    wrong = [svc(f"s{i}", externalIPs=["203.0.113.7"], created=f"{i:05}") for i in range(AT_ONCE + 10)]
    world = World(*wrong)
    rounds = 1
    while world.judge.dirty:
        world.step()
        rounds += 1
    assert 2 <= rounds <= 4
    said = [condition_of(each).get("status") for each in world.state.values() if each.kind == "Service"]
    assert said == [None] + ["False"] * (AT_ONCE + 9)


def test_a_service_that_cannot_be_understood() -> None:
    world = World(svc(ports=[{"port": "http"}], clusterIP="10.96.0.1"))
    assert world.said() == ("False", "NotUnderstood")


def test_since_when_and_of_which_version() -> None:
    world = World(node("n1"), svc(**DUAL), part("10.52.0.4"))
    first = condition_of(world.state[Key("Service", "d", "web")])
    assert (first["lastTransitionTime"], first["observedGeneration"]) == ("2026-01-01T00:00:00Z", 1)
    world.now += timedelta(minutes=1)
    world.put(part("10.52.0.4", node="n9"))
    second = condition_of(world.state[Key("Service", "d", "web")])
    assert second["lastTransitionTime"] == first["lastTransitionTime"], "it was wrong all the time"
    assert second["message"] != first["message"]
    assert len(world.events()) == 2


def test_somebody_elses_status_leaves_the_condition_alone() -> None:
    world = World(node("n1"), svc(**DUAL), part("10.52.0.4"))
    ingress = {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}
    given = Resource(kind="Service", namespace="d", name="web", manifest={"status": ingress})
    (change,) = plan_status(world.state, [given])
    assert change.resource.manifest["status"]["loadBalancer"] == ingress["loadBalancer"]
    assert condition_of(change.resource)["status"] == "False"


def test_events_are_news_for_an_hour() -> None:
    world = World(node("n1"), svc(**DUAL), part("10.52.0.4"))
    foreign = Resource(
        kind="Event", namespace="d", name="x", manifest={"type": "Normal", "reason": "Other", "count": 1}
    )
    world.put(foreign)
    world.now += timedelta(minutes=59)
    world.step()
    assert len(world.events()) == 2
    world.now += timedelta(minutes=2)
    world.step()
    assert world.events() == [("Normal", "Other", 1)]
