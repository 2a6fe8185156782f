"""The node as an endpoint: what is written before what, and which identity nodes have.  Real maps."""

from collections.abc import Iterator
from dataclasses import replace as changed
from ipaddress import ip_network
from typing import Any

import pytest
from pyroaring import BitMap

from cirri.datapath.bus import BusPlace, bus_place
from cirri.datapath.host import ALLOW_BUS, NODES, with_bus
from cirri.labels import NODE_SPACE, Reserved, api_server_labels, node_labels, probes
from cirri.labels.filter import LabelFilter
from cirri.layout import EndpointFlag, IpcacheKey, PolicyDirection, address16
from cirri.model import (
    Compiled,
    Direction,
    Identity,
    NodeStatus,
    PolicyEntry,
    Resource,
    Rule,
    SelectorSet,
    SubjectPolicy,
)

from .test_sync import World, a_world

HERE, FAR = "192.0.2.1", "192.0.2.2"
LOCALHOST = "hh"
BY_LABELS = {"enable-node-selector-labels": "true"}
ON = {"enable-host-firewall": "true", **BY_LABELS}


def node_object(name: str, **labels: str) -> Resource:
    return Resource(kind="Node", name=name, manifest={"metadata": {"name": name, "labels": labels}})


def config(**data: str) -> Resource:
    return Resource(kind="ConfigMap", namespace="kube-system", name="cirri-config", manifest={"data": data})


FORMS = node_labels(node_object("here", role="edge"), [HERE], LabelFilter.parse([]), by_labels=True)
HOST = next(probes(FORMS.host))
FAR_FORMS = node_labels(node_object("far", role="db"), [FAR], LabelFilter.parse([]), by_labels=True)
REMOTE = next(probes(FAR_FORMS.remote))


def identity(number: int, labels: frozenset[str]) -> Identity:
    return Identity(id=number, labels=tuple(sorted(labels)))


def host_policy(*rules: Rule, **sides: Any) -> PolicyEntry:
    ingress = Direction(enforced=bool(rules), rules=rules)
    return PolicyEntry(subject=SubjectPolicy(identity=HOST, ingress=ingress, **sides))


def selected(*numbers: int, key: str = LOCALHOST, prefixes: tuple[str, ...] = ()) -> SelectorSet:
    return SelectorSet(key=key, text=key, identities=BitMap(numbers).serialize(), prefixes=prefixes)


def marker(world: World, resources: int = 1) -> PolicyEntry:
    views = world.views
    seen = Compiled(
        resources=resources, selectors=views.selectors.revision, identities=views.identities.revision
    )
    return PolicyEntry(compiled=seen)


def owner(world: World, address: str) -> int:
    found = world.kernel.ipcache.map.get(IpcacheKey.of(ip_network(address)))
    return found.identity if found is not None else 0


@pytest.fixture
def world() -> Iterator[World]:
    with a_world(policy=256) as made:
        made.sync.book.here(NodeStatus(node="here", addresses=(HERE, "2001:db8::1")))
        yield made


NEWS = [
    ("config", "ConfigMap.kube-system.cirri-config._", config(**ON)),
    ("node_objects", "Node._.here._", node_object("here", role="edge")),
    ("identities", str(HOST), identity(HOST, FORMS.host)),
    ("selectors", LOCALHOST, selected(Reserved.HOST, 700)),
    ("policies", str(HOST), host_policy(Rule(selector=LOCALHOST, protocol=6, port=22, origins=(5,)))),
]


def test_the_switch_is_thrown_last_and_released_first(world: World) -> None:
    kernel = world.kernel
    for table, key, value in NEWS:
        assert not kernel.runtime.host_firewall
        world.put(table, key, value)
    assert not kernel.runtime.host_firewall, "the compiler has not said that selectors know the node"
    world.put("policies", "_revision", marker(world))
    assert kernel.runtime.host_firewall
    values = {a: v for a, v in kernel.policies.endpoint_map.items() if v.flags & EndpointFlag.HOST}
    assert values.keys() == {address16(HERE), address16("2001:db8::1"), bytes(16)}
    (value,) = set(values.values())
    assert (value.identity, value.ifindex, value.id) == (Reserved.HOST, 9, 65535)
    assert value.flags == EndpointFlag.HOST | EndpointFlag.ENFORCE_INGRESS
    entries = {(k.identity, k.port) for k, _ in kernel.policies.map.items() if k.policy_id == value.policy_id}
    assert entries == {(700, 22)}, "the node is no peer of itself under its number"
    assert world.sync.host.local is not None
    assert world.sync.host.local.record.labels == tuple(sorted(FORMS.host))

    world.put("config", NEWS[0][1], config())
    assert not kernel.runtime.host_firewall
    assert kernel.policies.map.count() == kernel.policies.endpoint_map.count() == 0


def test_without_its_policy_it_stays_off_and_says_so(world: World, monkeypatch: Any) -> None:
    for table, key, value in NEWS[:4]:
        world.put(table, key, value)
    world.put("policies", "_revision", marker(world))
    assert not world.kernel.runtime.host_firewall
    assert world.sync.policy_revision == 0, "not acknowledged"
    monkeypatch.setattr("cirri.datapath.host.LONG_S", -1)
    assert world.sync.faults() == [f"the host firewall waits for the policy of identity {HOST}"]


def test_a_restart_finds_it_on_and_leaves_it_so(world: World) -> None:
    for table, key, value in (*NEWS, ("policies", "_revision", None)):
        world.put(table, key, value if value is not None else marker(world))
    record = world.sync.host.record
    assert record is not None
    before = world.kernel.policies.endpoint_map.to_dict(), world.kernel.policies.map.to_dict()
    world.start()
    world.sync.book.here(NodeStatus(node="here", addresses=(HERE, "2001:db8::1")))
    world.sync.host.adopt(record)
    assert world.sync.host.local is not None
    assert world.sync.host.local.enforced == EndpointFlag.ENFORCE_INGRESS
    for name in world.sync.notes():
        world.note(name, frozenset(getattr(world.views, name)))
        world.sync.step()
        assert world.kernel.runtime.host_firewall
    assert (world.kernel.policies.endpoint_map.to_dict(), world.kernel.policies.map.to_dict()) == before


@pytest.mark.parametrize(
    ("members", "expected"),
    [({HOST, 700}, {Reserved.HOST, HOST, 700}), ({Reserved.HOST, 700}, {700}), ({700}, {700})],
    ids=["selects this node", "selects a node without labels", "selects no node"],
)
def test_selectors_speak_of_this_node_by_its_number(
    world: World, members: set[int], expected: set[int]
) -> None:
    for table, key, value in NEWS[:3]:
        world.put(table, key, value)
    world.put("policies", "_revision", marker(world))
    world.put("selectors", LOCALHOST, selected(*members))
    world.put(*NEWS[4])
    assert set(world.sync.enforcer.sets[LOCALHOST].members) == expected


def test_another_node_is_any_node_until_selectors_know_its_number(world: World) -> None:
    world.put("config", NEWS[0][1], config(**BY_LABELS))
    world.put("nodes", "far", NodeStatus(node="far", addresses=(FAR,)))
    assert owner(world, FAR) == Reserved.REMOTE_NODE
    world.put("node_objects", "Node._.far._", node_object("far", role="db"))
    world.put("identities", str(REMOTE), identity(REMOTE, FAR_FORMS.remote))
    assert owner(world, FAR) == Reserved.REMOTE_NODE
    world.put("policies", "_revision", marker(world))
    assert owner(world, FAR) == REMOTE

    # New labels: the old number stays until the new one is known.
    other = node_labels(node_object("far", role="web"), [FAR], LabelFilter.parse([]), by_labels=True).remote
    number = next(probes(other))
    world.put("node_objects", "Node._.far._", node_object("far", role="web"))
    assert owner(world, FAR) == REMOTE
    world.put("identities", str(number), identity(number, other))
    assert owner(world, FAR) == REMOTE
    world.put("policies", "_revision", marker(world, 2))
    assert owner(world, FAR) == number
    assert world.sync.policy_revision == 2

    world.put("node_objects", "Node._.far._", None)
    world.put("nodes", "far", None)
    assert owner(world, FAR) == Reserved.WORLD_IPV4


def test_what_a_restart_finds_of_other_nodes_holds_until_more_is_known(world: World) -> None:
    world.put("config", NEWS[0][1], config(**ON))
    world.put("node_objects", "Node._.far._", node_object("far", role="db"))
    world.put("identities", str(REMOTE), identity(REMOTE, FAR_FORMS.remote))
    world.put("nodes", "far", NodeStatus(node="far", addresses=(FAR,)))
    world.put("policies", "_revision", marker(world))
    assert owner(world, FAR) == REMOTE
    world.start()
    for name in world.sync.notes():
        world.note(name, frozenset(getattr(world.views, name)))
        world.sync.step()
        assert owner(world, FAR) == REMOTE


def test_a_node_object_alone_says_that_its_addresses_are_a_nodes(world: World) -> None:
    status = {
        "status": {
            "addresses": [{"type": "InternalIP", "address": FAR}, {"type": "Hostname", "address": "x"}]
        }
    }
    world.put("node_objects", "Node._.far._", Resource(kind="Node", name="far", manifest=status))
    assert owner(world, FAR) == Reserved.REMOTE_NODE


def api_slice(*addresses: str) -> Resource:
    manifest = {
        "metadata": {"labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "ports": [],
        "endpoints": [{"addresses": list(addresses)}],
    }
    return Resource(kind="EndpointSlice", namespace="default", name="k", manifest=manifest)


def test_an_api_server_is_known_on_a_node_and_outside(world: World) -> None:
    world.put("nodes", "far", NodeStatus(node="far", addresses=(FAR,)))
    outside = "203.0.113.9"
    world.put("slices", "EndpointSlice.default.k._", api_slice(FAR, outside))
    assert owner(world, FAR) == Reserved.KUBE_APISERVER
    labels = api_server_labels(outside)
    number, plain = next(probes(labels)), frozenset({f"cidr:{outside}/32", "reserved:world-ipv4"})
    other = next(probes(plain))
    world.put("identities", str(other), identity(other, plain))
    world.put("identities", str(number), identity(number, frozenset(labels)))
    world.put("policies", "_revision", marker(world))
    assert owner(world, outside) == number, "more than the prefix alone"
    world.put("slices", "EndpointSlice.default.k._", api_slice(outside))
    assert owner(world, FAR) == Reserved.REMOTE_NODE


BUS = BusPlace(4222, frozenset({HERE}))
CLOSED, OPEN = Direction(enforced=True), Direction()


@pytest.mark.parametrize(
    ("bus", "into", "out"),
    [(BUS, True, True), (BusPlace(4222, frozenset({FAR})), False, True), (BusPlace(4222), False, True),
     (BusPlace(4222, frozenset({"127.0.0.1"})), True, True)],
    ids=["here", "on another node", "nobody knows where", "on the loopback"],
)  # fmt: skip
def test_the_way_to_the_bus_stays_open_and_only_that(bus: BusPlace, into: bool, out: bool) -> None:
    policy = SubjectPolicy(identity=HOST, ingress=CLOSED, egress=CLOSED, audit_egress=CLOSED)
    found = with_bus(policy, bus, [HERE])
    rule = Rule(selector="", protocol=6, port=4222, origins=(ALLOW_BUS.cookie,))
    assert found.egress.rules == ((rule,) if out else ())
    assert found.audit_egress == found.egress
    assert [(r.selector, r.port) for r in found.ingress.rules] == ([(NODES, 4222)] if into else [])
    assert found.origins == (ALLOW_BUS,)
    assert with_bus(changed_sides(policy), bus, [HERE]).egress == OPEN, "what is open needs no rule"


def changed_sides(policy: SubjectPolicy) -> SubjectPolicy:
    return SubjectPolicy(identity=policy.identity, ingress=OPEN, egress=OPEN)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://192.0.2.7:4223", BusPlace(4223, frozenset({"192.0.2.7"}))),
        ("tls://[2001:db8::7]", BusPlace(4222, frozenset({"2001:db8::7"}))),
        ("nats://no-such-host.invalid:1", BusPlace(1)),
        ("tls://192.0.2.7:4223,tls://192.0.2.8:4223", BusPlace(4223, frozenset({"192.0.2.7", "192.0.2.8"}))),
    ],
)
def test_the_place_of_the_bus_is_read_from_its_url(url: str, expected: BusPlace) -> None:
    assert bus_place(url) == expected


def test_nodes_may_come_to_the_bus_that_runs_here(world: World) -> None:
    firewall = world.sync.host.firewall
    world.sync.host.firewall = changed(firewall, bus=BUS)
    for table, key, value in (*NEWS, ("policies", "_revision", None)):
        world.put(table, key, value if value is not None else marker(world))

    def admitted() -> set[int]:
        return {
            key.identity
            for key, _ in world.kernel.policies.map.items()
            if (key.direction, key.port) == (PolicyDirection.INGRESS, 4222)
        }

    assert admitted() == {Reserved.REMOTE_NODE, Reserved.KUBE_APISERVER}
    world.put("node_objects", "Node._.far._", node_object("far", role="db"))
    world.put("nodes", "far", NodeStatus(node="far", addresses=(FAR,)))
    world.put("identities", str(REMOTE), identity(REMOTE, FAR_FORMS.remote))
    world.put("policies", "_revision", marker(world))
    assert REMOTE in admitted()
    assert REMOTE in NODE_SPACE.low or REMOTE in NODE_SPACE.high
