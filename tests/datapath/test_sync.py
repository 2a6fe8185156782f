"""Tables to maps, with real maps and tables that are plain mappings, whatever the order of the news.

The tables here have what :class:`cirri.kv.Table` has for a reader; the service with a real bus is
tested in ``integration/node``.
"""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from msgspec.structs import replace
from pyroaring import BitMap

from cirri.datapath.bus import BusPlace
from cirri.datapath.host import Firewall, Uplink
from cirri.datapath.kernel import Kernel
from cirri.datapath.owners import EVERYWHERE
from cirri.datapath.regenerate import Local
from cirri.datapath.store import Record
from cirri.datapath.sync import Sync
from cirri.datapath.views import Views
from cirri.labels import LabelFilter, canonical, pod_labels, probes
from cirri.layout import EndpointFlag, IpcacheKey, LbServiceKey, address16, address_of
from cirri.loadbalancer import Acceleration
from cirri.maps import KernelRefused
from cirri.model import (
    Compiled,
    Direction,
    Endpoint,
    Identity,
    NodeStatus,
    PolicyEntry,
    Resource,
    Rule,
    SelectorSet,
    SubjectPolicy,
)
from cirri.netlink import NetlinkRefused
from cirri.proxies import NodeProxies
from cirri.testing.objects import service

from .test_kernel import pinned


class Known(dict[str, Any]):
    """A table that is complete; ``put`` is the news."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = asyncio.Event()
        self.ready.set()
        self.complete: frozenset[str] = frozenset()
        self.revision = 0
        self.revisions: dict[str, int] = {}

    def say(self, key: str, value: Any) -> None:
        self.revision += 1
        if value is None:
            self.pop(key, None)
        else:
            self[key] = value
            self.revisions[key] = self.revision

    def revision_of(self, key: str) -> int:
        return self.revisions[key]


class World:
    """One node with one pod that exists but has been told nothing yet."""

    def __init__(self, bpffs: Any) -> None:
        self.views = Views(*(Known() for _ in Views.__slots__))  # type: ignore[arg-type]
        self.bpffs = bpffs
        self.state = Path(mkdtemp(prefix="cirri-test-"))
        self.refuse = False
        self.told: list[NodeProxies] = []
        self.accelerated: list[Acceleration] = []
        self.start()
        record = Record(
            id=1, container="c", ifname="eth0", netns="/n", namespace="default", pod="web", interface="lxc0",
            mac="02:00:00:00:00:01", node_mac="02:00:00:00:00:02", ipv4="10.0.0.1",
        )  # fmt: skip
        self.seen: list[tuple[str, int]] = []
        self.local = self.sync.regenerator.add(record)
        self.sync.regenerator.attach(1, 5)
        for name in self.sync.notes():
            self.note(name, frozenset())

    def start(self) -> None:
        """As the service does."""
        self.kernel = Kernel(self.bpffs)
        self.sync = Sync(
            "here",
            "default",
            self.views,
            kernel=self.kernel,
            changed=self.changed,
            removed=lambda number: None,
            report=lambda: None,
            connected=lambda: True,
            firewall=Firewall(Uplink(9, "eth0", "02:00:00:00:00:09"), BusPlace(4222)),
            tunnel=self.tunnel,
            accelerate=self.accelerate,
            publish=self.told.append,
            state_dir=self.state,
            log=None,  # type: ignore[arg-type]
        )

    def resume(self) -> None:
        """Find the endpoint and the tables as they are."""
        self.local = self.sync.regenerator.add(self.local.record, self.local.ifindex)
        for name in self.sync.notes():
            self.note(name, frozenset(getattr(self.views, name)))
            self.sync.step()

    def tunnel(self, port: int) -> int:
        if self.refuse:
            raise NetlinkRefused("do it", 1)
        return 7 if port else 0

    def accelerate(self, wanted: Acceleration) -> None:
        if wanted != "disabled" and self.refuse:
            raise KernelRefused("attach", 16)
        self.accelerated.append(wanted)

    def changed(self, local: Local) -> None:
        self.seen.append((local.state, local.record.identity))

    def put(self, table: str, key: str, value: Any) -> None:
        """News: the table has it, then whoever follows it hears of it, then a step is made."""
        getattr(self.views, table).say(key, value)
        self.note(table, frozenset({key}))
        self.sync.step()

    def note(self, table: str, keys: frozenset[str]) -> None:
        self.sync.notes()[table](keys)


@contextmanager
def a_world(**sizes: int) -> Iterator[World]:
    with pinned(**sizes) as bpffs:
        world = World(bpffs)
        try:
            yield world
        finally:
            shutil.rmtree(world.state)


@pytest.fixture
def world() -> Iterator[World]:
    with a_world(policy=64) as made:
        yield made


POD = Resource(
    kind="Pod",
    namespace="default",
    name="web",
    node="here",
    manifest={"metadata": {"labels": {"app": "web"}}},
)
NAMESPACE = Resource(kind="Namespace", name="default", manifest={"metadata": {"labels": {"team": "a"}}})
LABELS = canonical(LabelFilter.parse([]).relevant(pod_labels(POD, NAMESPACE, "default")))
NUMBER = next(probes(LABELS))
PEER = 4711
POLICY = SubjectPolicy(
    identity=NUMBER,
    ingress=Direction(enforced=True, rules=(Rule(selector="aa", protocol=6, port=80, origins=(5,)),)),
)


def members(*identities: int) -> SelectorSet:
    return SelectorSet(key="aa", text="app=peer", identities=BitMap(identities).serialize())


NEWS: list[tuple[str, str, Any]] = [
    ("namespaces", "Namespace._.default._", NAMESPACE),
    ("pods", "Pod.default.web.here", POD),
    ("identities", str(NUMBER), Identity(id=NUMBER, labels=LABELS)),
    ("policies", str(NUMBER), PolicyEntry(subject=POLICY)),
    ("selectors", "aa", members(PEER)),
]


@pytest.mark.parametrize("order", list(permutations(range(5)))[::7], ids=str)
def test_an_endpoint_is_realized_once_all_is_known_and_not_before(
    world: World, order: tuple[int, ...]
) -> None:
    for position in order:
        assert not world.local.realized.is_set()
        assert not world.kernel.policies.endpoint_map.count()
        world.put(*NEWS[position])
    assert world.local.realized.is_set()
    assert (world.local.state, world.local.record.identity) == ("ready", NUMBER)
    value = world.kernel.policies.endpoint_map[address16("10.0.0.1")]
    assert (value.ifindex, value.identity, value.flags) == (5, NUMBER, EndpointFlag.ENFORCE_INGRESS)
    (entry,) = world.kernel.policies.map.to_dict()
    assert (entry.policy_id, entry.identity, entry.port) == (value.policy_id, PEER, 80)
    owner = world.kernel.ipcache.map.get(IpcacheKey(prefix_len=128, address=address16("10.0.0.1")))
    assert owner is not None
    assert owner.identity == NUMBER


@pytest.fixture
def running(world: World) -> World:
    for news in NEWS:
        world.put(*news)
    return world


def peers(world: World) -> set[int]:
    return {key.identity for key in world.kernel.policies.map.to_dict()}


def test_members_come_and_go_and_each_change_raises_the_epoch_once(running: World) -> None:
    epoch = running.kernel.runtime.value.epoch
    for step, identities in enumerate([(PEER, 1), (1,), (1,), ()], 1):
        running.put("selectors", "aa", members(*identities))
        assert peers(running) == set(identities)
        assert running.kernel.runtime.value.epoch == epoch + min(step, 2 if step < 4 else 3)


def test_rules_that_name_a_selector_that_is_not_here_leave_the_old_ones(running: World) -> None:
    more = SubjectPolicy(
        identity=NUMBER, ingress=Direction(enforced=True, rules=(Rule(selector="bb"), *POLICY.ingress.rules))
    )
    running.put("policies", str(NUMBER), PolicyEntry(subject=more))
    assert peers(running) == {PEER}
    assert running.sync.regenerator.behind
    running.put("selectors", "bb", SelectorSet(key="bb", text="b", identities=BitMap([9]).serialize()))
    assert peers(running) == {PEER, 9}
    assert not running.sync.regenerator.behind


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("policies", str(NUMBER)),
        ("selectors", "aa"),
        ("identities", str(NUMBER)),
        ("pods", "Pod.default.web.here"),
    ],
)
def test_what_vanishes_from_a_table_leaves_the_kernel_as_it_is(running: World, table: str, key: str) -> None:
    before = running.kernel.policies.map.to_dict(), running.kernel.policies.endpoint_map.to_dict()
    running.put(table, key, None)
    after = running.kernel.policies.map.to_dict(), running.kernel.policies.endpoint_map.to_dict()
    assert after == before


def test_damaged_members_are_as_if_they_had_not_arrived(running: World) -> None:
    running.put("selectors", "aa", SelectorSet(key="aa", text="", identities=b"garbage"))
    assert peers(running) == {PEER}


def test_a_policy_is_acknowledged_when_it_is_in_force_and_not_before(running: World) -> None:
    sync = running.sync
    seen = sync._seen["selectors"]
    running.put("policies", "_revision", PolicyEntry(compiled=Compiled(resources=40, selectors=seen)))
    assert sync.policy_revision == 40
    running.put("policies", "_revision", PolicyEntry(compiled=Compiled(resources=50, selectors=seen + 1)))
    assert sync.policy_revision == 40, "a selector that the marker speaks of has not arrived"
    running.put("selectors", "aa", members(PEER, 3))
    assert sync.policy_revision == 50


def test_a_full_map_is_told_and_not_acknowledged(running: World) -> None:
    running.put("selectors", "aa", members(*range(1000, 1100)))
    running.put("policies", "_revision", PolicyEntry(compiled=Compiled(resources=60, selectors=0)))
    assert running.sync.policy_revision == 0
    assert "map cirri_policy is full" in running.local.error
    assert any("endpoint 1 (default/web)" in fault for fault in running.sync.faults())
    running.put("selectors", "aa", members(1))
    running.put("policies", "_revision", PolicyEntry(compiled=Compiled(resources=61, selectors=0)))
    assert (running.local.error, running.sync.policy_revision, peers(running)) == ("", 61, {1})


def test_the_last_one_of_an_identity_takes_its_entries_along(running: World) -> None:
    running.sync.remove(1)
    assert running.kernel.policies.map.count() == running.kernel.policies.endpoint_map.count() == 0
    assert running.kernel.ipcache.map.to_dict() == EVERYWHERE


def odd_service(spec: dict[str, Any]) -> Resource:
    return Resource(kind="Service", namespace="default", name="web", manifest={"spec": spec})


FAR = NodeStatus(node="far", addresses=("192.0.2.2",), pod_cidrs=("10.9.0.0/24",))
AWAY = Endpoint(
    node="far", id=3, namespace="d", pod="p", container_id="c", interface="x", ipv4="10.9.0.3", identity=900
)


@pytest.mark.parametrize("news", list(permutations([("nodes", "far", FAR), ("endpoints", "far.3", AWAY)])))
def test_other_nodes_pods_are_known_whichever_is_told_first(
    world: World, news: tuple[tuple[str, str, Any], ...]
) -> None:
    for one in news:
        world.put(*one)
    found = world.kernel.ipcache.map.get(IpcacheKey(prefix_len=128, address=address16("10.9.0.3")))
    assert found is not None
    assert (found.identity, found.node) == (900, address16("192.0.2.2"))
    world.put("endpoints", "far.3", None)
    world.put("nodes", "far", None)
    assert world.kernel.ipcache.map.to_dict() == EVERYWHERE


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("nodes", "far", NodeStatus(node="far", addresses=("nonsense",))),
        ("nodes", "far", NodeStatus(node="far", addresses=("192.0.2.2",), pod_cidrs=("10.9.0.1/24",))),
        ("endpoints", "far.3", replace(AWAY, ipv4="10.9.0")),
        ("services", "Service.default.web._", odd_service({"clusterIP": "x", "ports": [{"port": 1}]})),
        ("services", "Service.default.web._", odd_service({"clusterIP": "10.96.0.1", "ports": [{}]})),
    ],
    ids=["node address", "node range", "endpoint address", "cluster ip", "port without a number"],
)
def test_nonsense_on_the_bus_is_told_and_left_out(world: World, table: str, key: str, value: Any) -> None:
    world.put("nodes", "far", FAR)
    before = world.kernel.ipcache.map.to_dict()
    world.put(table, key, value)
    assert len(world.sync.faults()) == 1
    assert world.kernel.ipcache.map.to_dict().keys() <= before.keys() | {
        IpcacheKey(prefix_len=128, address=address16("192.0.2.2"))
    }
    assert not world.kernel.services.services.count()


def test_services_without_their_slices_are_not_realized(world: World) -> None:
    world.views.slices.ready.clear()
    web, web_slice = service("10.96.0.1", ["10.0.0.9"])
    world.put("services", "Service.default.web._", web)
    assert not world.kernel.services.services.count()
    world.views.slices.ready.set()
    world.put("slices", "EndpointSlice.default.web-1._", web_slice)
    key = LbServiceKey(address=address16("10.96.0.1"), port=80, protocol=6)
    assert world.kernel.services.services[key].count == 1
    world.put("slices", "EndpointSlice.default.web-1._", None)
    assert world.kernel.services.services[key].count == 0
    world.put("services", "Service.default.web._", None)
    assert not world.kernel.services.services.count()


def test_what_the_compiler_complains_of_is_shown_and_holds_nothing_back(running: World) -> None:
    sync, why = running.sync, "C1: two rules contradict each other"
    running.put("policies", str(NUMBER), PolicyEntry(subject=replace(POLICY, error=why)))
    assert (running.local.error, running.local.fault, sync.faults()) == (why, "", [])
    running.put("policies", "_revision", PolicyEntry(compiled=Compiled(resources=70, selectors=0)))
    assert sync.policy_revision == 70
    running.put("policies", str(NUMBER), PolicyEntry(subject=POLICY))
    assert running.local.error == ""


def test_a_policy_waits_for_identities_of_its_prefixes_and_says_so(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = Rule(selector="pp")
    running.put("selectors", "pp", SelectorSet(key="pp", text="p", prefixes=("192.0.2.0/24",)))
    running.put(
        "policies",
        str(NUMBER),
        PolicyEntry(subject=replace(POLICY, egress=Direction(enforced=True, rules=(rule,)))),
    )
    assert peers(running) == {PEER}, "the old one holds"
    assert running.sync.faults() == []
    monkeypatch.setattr("cirri.datapath.regenerate.LONG_S", -1)
    assert running.sync.faults() == [
        "endpoint 1 (default/web): its new policy waits for identities of the address prefixes 192.0.2.0/24"
    ]
    running.put("policies", "_revision", PolicyEntry(compiled=Compiled(resources=80, selectors=0)))
    assert running.sync.policy_revision < 80


def test_audit_mode_is_the_endpoints_own_word_or_the_configurations(running: World) -> None:
    def audited() -> bool:
        value = running.kernel.policies.endpoint_map[address16("10.0.0.1")]
        return bool(value.flags & EndpointFlag.AUDIT)

    def configured(audit: str) -> None:
        data = {"data": {"policy-audit-mode": audit}}
        resource = Resource(kind="ConfigMap", namespace="kube-system", name="cirri-config", manifest=data)
        running.put("config", "ConfigMap.kube-system.cirri-config._", resource)

    epoch = running.kernel.runtime.value.epoch
    seen = []
    for step in (True, "true", False, None, "false", True, "true", None):
        if isinstance(step, str):
            configured(step)
        else:
            assert running.sync.configure(1, step)
        seen.append(audited())
        assert running.local.audited is audited()
    assert seen == [True, True, False, True, False, True, True, True]
    assert running.kernel.runtime.value.epoch > epoch
    assert not running.sync.configure(2, True)


def configured(world: World, **data: str) -> None:
    """The cluster's configuration says *data*."""
    manifest = {"data": {key.replace("_", "-"): value for key, value in data.items()}}
    found = Resource(kind="ConfigMap", namespace="kube-system", name="cirri-config", manifest=manifest)
    world.put("config", "ConfigMap.kube-system.cirri-config._", found)


def test_acceleration_follows_the_configuration_and_stays_until_that_is_known(world: World) -> None:
    def feature() -> str:
        return world.sync.accelerator.feature

    world.views.config.ready.clear()
    world.start()
    world.sync.step()
    assert world.accelerated == [], "what runs is not touched"
    world.views.config.ready.set()
    configured(world)
    assert (world.accelerated, feature()) == (["disabled"], "Disabled")
    configured(world, bpf_lb_acceleration="native")
    world.sync.step()
    assert (world.accelerated, feature()) == (["disabled", "native"], "Native")
    configured(world, bpf_lb_acceleration="disabled")
    assert (world.accelerated, feature()) == (["disabled", "native", "disabled"], "Disabled")
    world.refuse = True
    configured(world, bpf_lb_acceleration="best-effort")
    assert not world.sync.faults()
    assert feature().startswith("Disabled (attach")
    configured(world, bpf_lb_acceleration="native")
    assert any("bpf-lb-acceleration native: attach" in fault for fault in world.sync.faults())
    world.refuse = False
    world.sync.step()
    assert (world.sync.faults(), feature()) == ([], "Native"), "it is tried again"


def test_the_routing_mode_follows_the_configuration(world: World) -> None:
    node = replace(FAR, addresses=("192.0.2.2", "2001:db8::2"))
    world.put("nodes", "far", node)
    world.put("endpoints", "far.3", replace(AWAY, ipv6="fd00::9:3"))

    def hops() -> list[str]:
        found = world.kernel.ipcache.map.to_dict()
        keys = ("10.9.0.3", "fd00::9:3", "192.0.2.2", "2001:db8::2")
        return [
            str(address_of(found[IpcacheKey(prefix_len=128, address=address16(key))].node)) for key in keys
        ]

    native = ["192.0.2.2", "2001:db8::2", "::", "::"]
    assert hops() == native
    epoch = world.kernel.runtime.value.epoch
    configured(world, routing_mode="tunnel")
    assert world.kernel.runtime.value.tunnel_ifindex == 7
    assert world.kernel.runtime.value.epoch > epoch
    assert hops() == ["192.0.2.2"] * 4
    assert world.sync.overlay.feature == "Tunnel [vxlan, port 8472, cirri_vxlan]"

    world.start()
    assert world.sync.book.tunnel, "a new process goes on with what the kernel has"
    world.resume()
    world.refuse = True
    configured(world, routing_mode="native")
    assert any("routing mode native" in fault for fault in world.sync.faults())
    world.refuse = False
    world.sync.step()
    assert not world.sync.faults()
    assert world.kernel.runtime.value.tunnel_ifindex == 0
    assert hops() == native
    configured(world, routing_mode="nonsense")
    assert (world.sync.overlay.feature, hops()) == ("Native", native)
