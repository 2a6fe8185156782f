"""Services become frontends in the maps of a node, real ones; what depends on the node follows it."""

import asyncio
from itertools import permutations
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from cirri.datapath.balance import Balancer
from cirri.datapath.kernel import Kernel
from cirri.layout import LbBackend, LbFlag, LbServiceKey, address16, address_of
from cirri.model import NodeStatus, Resource
from cirri.testing.objects import service

from .test_kernel import pinned


class Known(dict[str, Any]):
    """A table that is complete."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = asyncio.Event()
        self.ready.set()


class Node:
    """Tables and maps of one node."""

    def __init__(self, bpffs: Any) -> None:
        names = ("services", "slices", "pods", "nodes", "node_objects", "config")
        views: Any = SimpleNamespace(**{name: Known() for name in names})
        self.views = views
        self.kernel = Kernel(bpffs)
        self.balancer = Balancer("n1", views, self.kernel.services)

    def put(self, *resources: Resource) -> None:
        for each in resources:
            key = f"{each.kind}.{each.namespace or '_'}.{each.name}.{each.node or '_'}"
            table, note = self.table(each.kind)
            table[key] = each
            note([key])

    def drop(self, each: Resource) -> None:
        table, note = self.table(each.kind)
        del table[key := f"{each.kind}.{each.namespace}.{each.name}.{each.node or '_'}"]
        note([key])

    def table(self, kind: str) -> Any:
        return {
            "Service": (self.views.services, self.balancer.note_services),
            "EndpointSlice": (self.views.slices, self.balancer.note_slices),
            "Pod": (self.views.pods, self.balancer.note_pods),
        }[kind]

    def served(self) -> dict[tuple[str, int], list[str]]:
        """(address, port) -> backends, of TCP."""
        self.balancer.step()
        return {
            (str(address_of(key.address)), key.port): [
                str(address_of(each.address)) for each in ways.backends
            ]
            for key, ways in self.kernel.services.copy.items()
            if key.protocol == 6
        }


def outside(
    name: str, *external: str, address: str = "10.96.0.1", backend: str = "10.52.0.4"
) -> list[Resource]:
    front, part = service(address, [backend], name=name)
    spec = {**front.manifest["spec"], "externalIPs": list(external)}
    endpoints = [{**each, "nodeName": "n1"} for each in part.manifest["endpoints"]]
    part = replace(part, manifest={**part.manifest, "endpoints": endpoints})
    return [replace(front, manifest={**front.manifest, "spec": spec}), part]


def test_node_ports_are_served_on_the_addresses_that_nodes_have() -> None:
    front, part = service("10.96.0.1", ["10.52.0.4"])
    ports = [{**port, "nodePort": 30000 + port["port"]} for port in front.manifest["spec"]["ports"]]
    spec = {**front.manifest["spec"], "type": "NodePort", "ports": ports}
    with pinned() as bpffs:
        node = Node(bpffs)
        node.put(replace(front, manifest={**front.manifest, "spec": spec}), part)
        assert set(node.served()) == {("10.96.0.1", 80)}
        node.views.nodes["n1"] = NodeStatus(node="n1", addresses=("192.168.3.11", "fd00::11"))
        node.views.nodes["n2"] = NodeStatus(node="n2", addresses=("192.168.3.12",))
        node.balancer.note_node()
        at = {("10.96.0.1", 80), ("192.168.3.11", 30080), ("192.168.3.12", 30080)}
        assert node.served() == {key: ["10.52.0.4"] for key in at}
        del node.views.nodes["n2"]
        node.balancer.note_node()
        assert ("192.168.3.12", 30080) not in node.served()


def test_an_address_that_two_services_want_is_the_first_ones_until_it_gives_it_up() -> None:
    with pinned() as bpffs:
        node = Node(bpffs)
        node.put(*outside("a", "203.0.113.7"))
        assert node.served()["203.0.113.7", 80] == ["10.52.0.4"]
        node.put(*outside("b", "203.0.113.7", address="10.96.0.2", backend="10.52.0.5"))
        served = node.served()
        assert (served["203.0.113.7", 80], served["10.96.0.2", 80]) == (["10.52.0.4"], ["10.52.0.5"])
        (fault,) = node.balancer.faults.values()
        assert fault.startswith("Service default/b is not served at 203.0.113.7 port 8")
        assert fault.endswith("Service default/a has that address and port")
        node.put(*outside("a"))
        assert node.served()["203.0.113.7", 80] == ["10.52.0.5"]
        assert not node.balancer.faults


def test_of_several_services_the_oldest_has_an_address_on_every_node_whatever_came_first() -> None:
    def aged(created: str, *objects: Resource) -> list[Resource]:
        front, part = objects
        metadata = {**front.manifest["metadata"], "creationTimestamp": created}
        return [replace(front, manifest={**front.manifest, "metadata": metadata}), part]

    backends = {"a": "10.52.0.4", "b": "10.52.0.5", "c": "10.52.0.6"}
    wants = {
        name: outside(name, "203.0.113.7", address=f"10.96.0.{backend[-1]}", backend=backend)
        for name, backend in backends.items()
    }
    ages = {"a": "2026-01-03T", "b": "2026-01-01T", "c": "2026-01-02T"}
    with pinned() as bpffs:
        node = Node(bpffs)
        for order in permutations(wants):
            for name in order:
                node.put(*aged(ages[name], *wants[name]))
                node.served()
            assert node.served()["203.0.113.7", 80] == ["10.52.0.5"]
            faults = sorted(node.balancer.faults.values())
            assert [fault[:20] for fault in faults] == ["Service default/a is", "Service default/c is"]
            assert all(fault.endswith("Service default/b has that address and port") for fault in faults)
            # Deleted and made again in one go, it is the youngest.
            node.put(*aged("2026-01-09T", *wants["b"]))
            assert node.served()["203.0.113.7", 80] == ["10.52.0.6"]
            for name in wants:
                node.drop(wants[name][0])
            assert ("203.0.113.7", 80) not in node.served()


def test_a_wrong_configuration_leaves_the_earlier_one_in_force() -> None:
    with pinned() as bpffs:
        node = Node(bpffs)
        node.put(*service("10.96.0.1", ["10.52.0.4"]))
        wrong = {"metadata": {}, "data": {"bpf-lb-algorithm": "fair"}}
        node.views.config["c"] = Resource(kind="ConfigMap", name="cirri-config", manifest=wrong)
        node.balancer.note_node()
        assert node.served()
        assert "bpf-lb-algorithm: 'fair' is not allowed" in "".join(node.balancer.faults.values())
        node.views.config.clear()
        node.balancer.note_node()
        assert not node.balancer.faults


def configure(node: Node, **data: str) -> None:
    manifest = {"metadata": {}, "data": {key.replace("_", "-"): value for key, value in data.items()}}
    node.views.config["c"] = Resource(kind="ConfigMap", name="cirri-config", manifest=manifest)
    node.balancer.note_node()


def test_who_answers_clients_outside_changes_live() -> None:
    """By annotation and by configuration; what cannot be had with tunnels names the keys, and is not done."""
    front, part = outside("a", "203.0.113.7")
    metadata = {**front.manifest["metadata"], "annotations": {"service.cilium.io/forwarding-mode": "dsr"}}
    annotated = replace(front, manifest={**front.manifest, "metadata": metadata})

    def flags(node: Node) -> tuple[LbFlag, LbFlag]:
        """Of the frontend for clients outside, by TCP and by UDP."""
        node.balancer.step()
        copy = node.kernel.services.copy
        of = {key.protocol: LbFlag(ways.flags) for key, ways in copy.items() if key.scope}
        return of[6], of[17]

    direct, inside, none = LbFlag.DSR, LbFlag.DSR | LbFlag.DSR_IPIP, LbFlag(0)
    with pinned() as bpffs:
        node = Node(bpffs)
        node.put(front, part)
        for data, wanted in (
            ({}, (none, none)),
            ({"bpf_lb_mode": "dsr"}, (direct, direct)),
            ({"bpf_lb_mode": "hybrid"}, (direct, none)),
            ({"bpf_lb_mode": "hybrid", "bpf_lb_dsr_dispatch": "ipip"}, (inside, none)),
        ):
            configure(node, **data)
            assert flags(node) == wanted, data
            assert not node.balancer.faults
        configure(node, bpf_lb_mode="dsr", routing_mode="tunnel")
        assert flags(node) == (none, none)
        (fault,) = node.balancer.faults.values()
        assert fault.startswith("cirri-config: bpf-lb-mode: dsr needs routing-mode: native")
        configure(node, routing_mode="tunnel")
        node.put(annotated)
        assert flags(node) == (none, none)
        (fault,) = node.balancer.faults.values()
        assert fault.startswith("Service default/a: service.cilium.io/forwarding-mode needs routing-mode")
        configure(node)
        assert flags(node) == (direct, direct)
        assert not node.balancer.faults


def test_the_algorithm_changes_live_by_annotation_and_by_configuration() -> None:
    """Of one Service, and of all; tables that nobody needs any more are gone."""
    annotated = {"service.cilium.io/lb-algorithm": "maglev"}
    front, part = outside("a", "203.0.113.7")
    part = replace(part, manifest={**part.manifest, "endpoints": [
        {"addresses": [f"10.52.0.{n}"], "nodeName": "n1", "conditions": {"ready": True}} for n in (4, 5)
    ]})  # fmt: skip

    def sizes(node: Node) -> set[tuple[int, int]]:
        """(scope, slots) of all frontends."""
        node.balancer.step()
        heads = node.kernel.services.services.to_dict()
        tables = {head.table for head in heads.values() if head.table_size}
        assert {key.table for key in node.kernel.services.tables.parts.keys()} == tables  # noqa: SIM118
        return {(key.scope, head.table_size) for key, head in heads.items()}

    with pinned() as bpffs:
        node = Node(bpffs)
        node.put(front, part)
        assert sizes(node) == {(0, 0), (1, 0)}
        metadata = {**front.manifest["metadata"], "annotations": annotated}
        node.put(replace(front, manifest={**front.manifest, "metadata": metadata}))
        assert sizes(node) == {(0, 0), (1, 16381)}
        configure(node, bpf_lb_maglev_table_size="251")
        assert sizes(node) == {(0, 0), (1, 251)}
        node.put(front)
        assert sizes(node) == {(0, 0), (1, 0)}
        configure(node, bpf_lb_algorithm="maglev")
        assert sizes(node) == {(0, 0), (1, 16381)}
        seed = node.kernel.services.copy.values()
        before = {ways.table for ways in seed}
        configure(node, bpf_lb_algorithm="maglev", bpf_lb_maglev_hash_seed="AAAAAAAAAAAAAAAA")
        assert sizes(node) == {(0, 0), (1, 16381)}
        assert before != {ways.table for ways in node.kernel.services.copy.values()}


def test_that_a_backend_is_gone_is_told_once_it_may_keep_nothing() -> None:
    """One that terminates keeps its sockets; a frontend that goes leaves none to anybody."""
    front, part = service("10.96.0.1", ["10.52.0.4", "10.52.0.5"])
    dns = LbServiceKey(address=address16("10.96.0.1"), port=81, protocol=17)
    first, second = (LbBackend(address=address16(f"10.52.0.{n}"), port=8081) for n in (4, 5))

    def endpoints(*states: dict[str, bool]) -> Resource:
        listed = [{"addresses": [f"10.52.0.{n}"], "conditions": state} for n, state in enumerate(states, 4)]
        return replace(part, manifest={**part.manifest, "endpoints": listed})

    up: dict[str, bool] = {"ready": True}
    leaving = {"ready": False, "serving": True, "terminating": True}
    with pinned() as bpffs:
        node = Node(bpffs)
        node.put(front, part)
        node.served()
        assert node.balancer.left.is_set(), "what went before the start is looked for once"
        for states, told, kept in (
            ((up, up), False, {first, second}),
            ((up, leaving), False, {first, second}),
            ((up,), True, {first}),
            ((up, up), False, {first, second}),
        ):
            node.balancer.left.clear()
            node.put(endpoints(*states))
            node.served()
            assert node.balancer.left.is_set() is told, states
            assert node.balancer.kept == {dns: kept}
        node.views.services.clear()
        node.balancer.note_services(["Service.default.web._"])
        node.served()
        assert node.balancer.left.is_set()
        assert node.balancer.kept == {}


def test_sockets_of_an_address_that_an_older_service_takes_are_told() -> None:
    external = LbServiceKey(address=address16("203.0.113.7"), port=81, protocol=17)

    def aged(created: str, *objects: Resource) -> list[Resource]:
        front, part = objects
        metadata = {**front.manifest["metadata"], "creationTimestamp": created}
        return [replace(front, manifest={**front.manifest, "metadata": metadata}), part]

    with pinned() as bpffs:
        node = Node(bpffs)
        for created, name, address, backend in (
            ("2026-01-02T", "young", "10.96.0.1", "10.52.0.4"),
            ("2026-01-01T", "old", "10.96.0.2", "10.52.0.5"),
        ):
            node.balancer.left.clear()
            node.put(*aged(created, *outside(name, "203.0.113.7", address=address, backend=backend)))
            node.served()
            assert node.balancer.kept[external] == {LbBackend(address=address16(backend), port=8081)}
            assert node.balancer.left.is_set()
        assert len(node.balancer.kept) == 3


def listens(name: str, backend: str, *ports: int, phase: str = "Running") -> Resource:
    """A Pod of this node with host ports, served at port 8080."""
    wanted = [{"hostPort": port, "containerPort": 8080} for port in ports]
    status = {"phase": phase, "podIPs": [{"ip": backend}]}
    manifest = {"metadata": {}, "spec": {"containers": [{"name": "c", "ports": wanted}]}, "status": status}
    return Resource(kind="Pod", namespace="default", name=name, node="n1", manifest=manifest)


def test_host_ports_follow_the_pods_that_have_them() -> None:
    a, b, at = "10.52.0.4", "10.52.0.5", "192.168.3.11"
    with pinned() as bpffs:
        node = Node(bpffs)
        node.put(listens("b", b, 80, 81), listens("plain", "10.52.0.9"))
        assert node.served() == {}, "the node has no address yet"
        node.views.nodes["n1"] = NodeStatus(node="n1", addresses=(at,))
        node.balancer.note_node()
        assert node.served() == {(at, 80): [b], (at, 81): [b]}
        node.put(listens("a", a, 80))
        assert node.served() == {(at, 80): [a], (at, 81): [b]}, "the first by name has it"
        (fault,) = node.balancer.faults.values()
        assert fault == (
            f"Pod default/b is not served at {at} port 80: Pod default/a has that address and port"
        )
        node.put(listens("a", a, 80, phase="Succeeded"))
        assert node.served() == {(at, 80): [b], (at, 81): [b]}
        assert not node.balancer.faults
        node.put(listens("a", a, 80))
        node.served()
        node.drop(listens("b", b, 80, 81))
        assert node.served() == {(at, 80): [a]}
        assert not node.balancer.faults


def test_a_host_port_that_a_service_has_stays_the_services() -> None:
    with pinned() as bpffs:
        node = Node(bpffs)
        node.views.nodes["n1"] = NodeStatus(node="n1", addresses=("192.168.3.11",))
        node.balancer.note_node()
        node.put(*outside("web", "192.168.3.11"))
        node.served()
        node.put(listens("a", "10.52.0.5", 80))
        assert node.served()["192.168.3.11", 80] == ["10.52.0.4"]
        (fault,) = node.balancer.faults.values()
        assert fault.startswith(
            "Pod default/a is not served at 192.168.3.11 port 80: Service default/web has"
        )


def test_a_host_port_of_the_loopback_is_not_for_the_wire() -> None:
    with pinned() as bpffs:
        node = Node(bpffs)
        local = listens("a", "10.52.0.4", 80)
        local.manifest["spec"]["containers"][0]["ports"][0]["hostIP"] = "127.0.0.1"
        node.put(local)
        node.served()
        assert [(key.port, key.scope) for key in node.kernel.services.copy] == [(80, 0)]


def test_whether_the_node_itself_serves_clients_outside() -> None:
    with pinned() as bpffs:
        node = Node(bpffs)
        for own, serves in (("10.52.0.4", True), ("10.52.0.5", False)):
            node.views.nodes["n1"] = NodeStatus(node="n1", addresses=(own,))
            node.balancer.note_node()
            node.put(*outside("web", "203.0.113.7"))
            node.served()
            assert node.balancer.node_serves is serves
        node.put(*service("10.96.0.9", ["10.52.0.5"], name="inside"))
        node.served()
        assert not node.balancer.node_serves
