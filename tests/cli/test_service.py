"""``cirri service`` and ``cirri bpf lb|affinity``: what the maps hold, and what the bus adds to it."""

from ipaddress import ip_network
from typing import Any, NamedTuple

import pytest

from cirri.cli import lbrecords as s
from cirri.cli import records as r
from cirri.cli import service as service_command
from cirri.cli.service import meant_for
from cirri.layout import (
    CT,
    LB_AFFINITY,
    LB_ALIVE,
    LB_BACKENDS,
    LB_FRONTENDS,
    LB_MAGLEV,
    LB_RANGES,
    LB_SERVICES,
    MAGLEV_PART,
    CtFlag,
    CtKey,
    CtValue,
    LbAffinity,
    LbAffinityKey,
    LbAliveKey,
    LbBackend,
    LbBackendKey,
    LbFlag,
    LbFrontend,
    LbRangeKey,
    LbScope,
    LbService,
    LbServiceKey,
    LbState,
    MaglevPart,
    NatDirection,
    NatKey,
    NatValue,
    address16,
    maglev_keys,
    maglev_parts,
)
from cirri.loadbalancer import Backend, Frontend, Scope, Serving
from cirri.maps import open_pinned
from cirri.model import NodeStatus, Resource
from cirri.testing.objects import service

ONE, TWO, THREE = "10.52.0.1", "10.52.0.2", "10.52.0.3"
VIP = "10.96.0.7"
FIRST, SECOND = f"1 => {ONE}:8080/TCP (active)", f"2 => {TWO}:8080/TCP (active)"


def key(address: str = VIP, port: int = 80, protocol: int = 6, scope: int = 0) -> LbServiceKey:
    return LbServiceKey(address=address16(address), port=port, protocol=protocol, scope=scope)


def slots(service: int, *addresses: str) -> dict[LbBackendKey, LbBackend]:
    return {
        LbBackendKey(service=service, slot=slot): LbBackend(address=address16(address), port=8080)
        for slot, address in enumerate(addresses)
    }


def serving(*backends: Backend) -> dict[Frontend, Serving]:
    return {Frontend(VIP, 80, "TCP", Scope.INTERNAL): Serving("ClusterIP", "default", "web", backends)}


def alive(frontend: int, **states: int) -> dict[LbAliveKey, int]:
    names = {"one": ONE, "two": TWO, "three": THREE}
    return {
        LbAliveKey(address=address16(names[name]), frontend=frontend, port=8080): state
        for name, state in states.items()
    }


INSIDE, OUTSIDE = {key(): LbService(id=3, frontend=7, count=2)}, LbService(id=4, frontend=8, count=1)


class Case(NamedTuple):
    """Rows of `service list` for these maps and what the bus says."""

    id: str
    maps: s.Maps
    known: s.Known
    rows: list[list[Any]]


CASES = [
    Case("nothing", s.Maps({}, {}, {}, ()), {}, []),
    Case(
        "without the bus",
        s.Maps(INSIDE, slots(3, ONE, TWO), {}, ()),
        {},
        [["7", f"{VIP}:80/TCP", "-", [FIRST, SECOND], "-"]],
    ),
    Case(
        "type, name, and one that only keeps its sockets",
        s.Maps(INSIDE, slots(3, ONE, TWO), {}, ()),
        serving(Backend(ONE, 8080), Backend(TWO, 8080), Backend(THREE, 8080, state="terminating")),
        [
            [
                "7",
                f"{VIP}:80/TCP",
                "ClusterIP",
                [
                    FIRST,
                    SECOND,
                    f"3 => {THREE}:8080/TCP (terminating)",
                ],
                "default/web",
            ]
        ],
    ),
    Case(
        "all that are left terminate",
        s.Maps({key(): LbService(id=3, frontend=7, count=1)}, slots(3, ONE), {}, ()),
        serving(Backend(ONE, 8080, state="terminating")),
        [["7", f"{VIP}:80/TCP", "ClusterIP", [f"1 => {ONE}:8080/TCP (terminating)"], "default/web"]],
    ),
    Case(
        "what the kernel has counts, not what the bus says",
        s.Maps({key(): LbService(id=3, frontend=7, count=1)}, slots(3, TWO), {}, ()),
        serving(Backend(ONE, 8080)),
        [["7", f"{VIP}:80/TCP", "ClusterIP", [f"1 => {TWO}:8080/TCP (active)"], "default/web"]],
    ),
    Case(
        "two scopes, by ID; one keeps connections from outside",
        s.Maps(
            INSIDE | {key(scope=1): OUTSIDE},
            slots(3, ONE, TWO) | slots(4, ONE),
            alive(8, one=LbState.TAKING, two=LbState.KEEPING),
            (),
        ),
        {},
        [
            ["7", f"{VIP}:80/TCP/i", "-", [FIRST, SECOND], "-"],
            ["8", f"{VIP}:80/TCP", "-", [FIRST, f"2 => {TWO}:8080/TCP (terminating)"], "-"],
        ],
    ),
    Case(
        "nobody serves, IPv6; a slot is not there",
        s.Maps(
            {
                key("fd00::7", 53, 17): LbService(id=1, frontend=2, count=0),
                key(port=81): LbService(id=2, frontend=3, count=1),
            },
            {},
            {},
            (),
        ),
        {},
        [["2", "[fd00::7]:53/UDP", "-", "", "-"], ["3", f"{VIP}:81/TCP", "-", ["1 => ?/TCP (missing)"], "-"]],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_rows(case: Case) -> None:
    assert [s.service_row(record) for record in s.service_records(case.maps, case.known)] == case.rows


def test_a_node_port_means_one_thing_on_its_node_and_another_on_others() -> None:
    """Names come by the node's own reckoning: of its addresses, its pods' host ports, its configuration."""
    front, part = service("10.96.0.10", [ONE], name="web")
    spec = {**front.manifest["spec"], "type": "NodePort"}
    spec["ports"] = [{**port, "nodePort": 30000 + port["port"]} for port in spec["ports"]]
    front = Resource(
        kind="Service", namespace="default", name="web", manifest={**front.manifest, "spec": spec}
    )
    broken = Resource(kind="Service", namespace="default", name="broken", manifest={"spec": {"ports": [7]}})
    pod = Resource(
        kind="Pod", namespace="default", name="door", node="node1",
        manifest={
            "spec": {"containers": [{"ports": [{"hostPort": 8443, "containerPort": 443}]}]},
            "status": {"podIPs": [{"ip": TWO}]},
        },
    )  # fmt: skip
    objects = {"services": [broken, front], "slices": [part], "nodes": [], "pods": [pod], "config": []}
    statuses = [
        NodeStatus(node="node1", addresses=("192.168.3.11",)),
        NodeStatus(node="node2", addresses=("192.168.3.12",)),
    ]

    found = {node: meant_for(node, objects, statuses) for node in ("node1", "node2")}

    def kinds(node: str, address: str, port: int) -> list[tuple[Scope, str]]:
        return [
            (scope, one.kind)
            for scope in Scope
            if (one := found[node].get(Frontend(address, port, "TCP", scope)))
        ]

    both = [(Scope.INTERNAL, "NodePort"), (Scope.EXTERNAL, "NodePort")]
    assert kinds("node1", "192.168.3.11", 30080) == both
    assert kinds("node1", "192.168.3.12", 30080) == both[:1]
    assert kinds("node2", "192.168.3.12", 30080) == both
    assert kinds("node1", "10.96.0.10", 80) == [(Scope.INTERNAL, "ClusterIP")]
    assert [kind for _, kind in kinds("node1", "192.168.3.11", 8443)] == ["HostPort", "HostPort"]
    assert kinds("node2", "192.168.3.12", 8443) == []


@pytest.fixture
def balanced(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """node1 with one Service in both scopes: restricted and sticky for clients outside; there is no bus."""
    monkeypatch.setattr(service_command, "BUS_S", 0.1)
    where = cluster.bpffs["node1"]
    outside = LbService(
        id=4, frontend=8, count=1, affinity_s=600, flags=int(LbFlag.RANGES_DENY | LbFlag.MAGLEV)
    )
    address = LbAffinityKey(client=address16("192.0.2.9"), frontend=8)
    namespace = LbAffinityKey(client=bytes(8) + (77).to_bytes(8, "little"), frontend=7)

    def kept(backend: str, used: int) -> LbAffinity:
        return LbAffinity(address=address16(backend), port=8080, used=used)

    content: list[tuple[Any, dict[Any, Any]]] = [
        (LB_SERVICES, INSIDE | {key(scope=LbScope.EXTERNAL): outside}),
        (LB_BACKENDS, slots(3, ONE, TWO) | slots(4, ONE) | slots(9, THREE)),
        (LB_ALIVE, alive(8, one=LbState.TAKING, two=LbState.KEEPING)),
        (LB_FRONTENDS, {8: LbFrontend(address=address16(VIP), port=80)}),
        (LB_RANGES, {LbRangeKey.of(8, ip_network("192.0.2.0/24")): 1}),
        (LB_AFFINITY, {address: kept(ONE, 1), namespace: kept(TWO, 2)}),
    ]
    for spec, entries in content:
        with open_pinned(where, spec) as opened:
            opened.put_many(entries.items())
    return cluster


PARTS: dict[str, list[list[str]]] = {
    "lb list": [
        ["SERVICE ADDRESS", "BACKEND ADDRESS (SERVICE ID) (SLOT)"],
        [f"{VIP}:80/TCP/i", f"{ONE}:8080/TCP (3) (0)"],
        [f"{TWO}:8080/TCP (3) (1)"],
        [f"{VIP}:80/TCP", f"{ONE}:8080/TCP (4) (0)"],
    ],
    "lb list --frontends": [
        ["ID", "SERVICE ADDRESS", "SCOPE", "SERVICE ID", "BACKENDS", "AFFINITY", "FLAGS"],
        ["7", f"{VIP}:80/TCP/i", "internal", "3", "2", "-", "-"],
        ["8", f"{VIP}:80/TCP", "external", "4", "1", "600s", "RangesDeny,Maglev"],
    ],
    "lb list --backends": [
        ["ID", "SERVICE ID", "SLOT", "BACKEND ADDRESS", "STATE"],
        ["7", "3", "0", f"{ONE}:8080/TCP", "active"],
        ["7", "3", "1", f"{TWO}:8080/TCP", "active"],
        ["8", "4", "0", f"{ONE}:8080/TCP", "active"],
        ["8", "-", "-", f"{TWO}:8080/TCP", "terminating"],
        ["-", "9", "0", f"{THREE}:8080", "active"],
    ],
    "lb list --revnat": [["ID", "SERVICE ADDRESS"], ["8", f"{VIP}:80"]],
    "lb list --source-ranges": [
        ["SOURCE RANGE", "ID", "SERVICE ADDRESS", "POLICY"],
        ["192.0.2.0/24", "8", f"{VIP}:80/TCP", "deny"],
    ],
}


@pytest.mark.parametrize("words", PARTS, ids=lambda w: w.removeprefix("lb list").strip(" -") or "all")
def test_lb_list(balanced: Any, words: str) -> None:
    result = balanced.run("bpf", *words.split(), "--node", "node1")

    assert result.exit_code == 0, result.output
    cells = [[c.strip() for c in line.split("   ") if c.strip()] for line in result.stdout.splitlines()]
    assert cells == PARTS[words]
    assert len(balanced.json("bpf", *words.split(), "--node", "node1")) >= 1


def test_affinity_list(balanced: Any) -> None:
    rows = balanced.run("bpf", "affinity", "list", "--node", "node1").stdout.splitlines()

    assert [row.split("   ")[0].strip() for row in rows] == ["CLIENT", "netns cookie 77", "192.0.2.9"]
    assert f"{VIP}:80/TCP" in rows[1]
    assert f"{TWO}:8080" in rows[1]
    assert rows[1].endswith("s ago")


def test_service_list_works_without_the_bus_and_says_what_is_missing(balanced: Any) -> None:
    result = balanced.run("service", "list")

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].split() == " ".join(s.SERVICE_HEADER).split()
    assert "1 => 10.52.0.1:8080/TCP (active)" in result.stdout
    assert "Types and names of Services are not known: " in result.stderr
    assert balanced.json("service", "list")[1]["sourceRanges"] == ["192.0.2.0/24"]


def test_service_get(balanced: Any) -> None:
    result = balanced.run("service", "get", "8")

    assert result.stdout.splitlines() == [
        "Node:             node1",
        "ID:               8",
        f"Frontend:         {VIP}:80/TCP",
        "Service Type:     -",
        "Service:          -",
        "Clients:          from the wire",
        "Session Affinity: ClientIP, 600 s",
        "Source Ranges:    all but 192.0.2.0/24",
        "Flags:            RangesDeny, Maglev",
        "Backends:",
        f"  1 => {ONE}:8080/TCP (active)",
        f"  2 => {TWO}:8080/TCP (terminating)",
    ]
    unknown = balanced.run("service", "get", "99")
    assert unknown.exit_code == 1
    assert "no frontend 99 on node1, node2. `cirri service list` shows all" in unknown.stderr


def test_maglev_list(cluster: Any) -> None:
    """A table of seven slots, and one of which a part is not there."""
    head = LbService(id=3, frontend=7, count=2, table=0xAB, table_size=7)
    half = LbService(id=3, frontend=8, count=2, table=0xCD, table_size=MAGLEV_PART + 1)
    part = next(maglev_parts(b"".join(slot.to_bytes(2, "little") for slot in (0, 1, 1, 0, 1, 0, 1))))
    content: list[tuple[Any, dict[Any, Any]]] = [
        (LB_SERVICES, {key(): head, key(port=81): half, key(port=82): LbService(id=9, frontend=9, count=0)}),
        (LB_BACKENDS, slots(3, ONE, TWO)),
        (
            LB_MAGLEV,
            {
                maglev_keys(0xAB, 7)[0]: part,
                maglev_keys(0xCD, 1)[0]: MaglevPart(slots=bytes(2 * MAGLEV_PART)),
            },
        ),
    ]
    for spec, entries in content:
        with open_pinned(cluster.bpffs["node1"], spec) as opened:
            opened.put_many(entries.items())

    result = cluster.run("bpf", "lb", "maglev", "list", "--node", "node1")
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]

    assert rows[1:] == [
        f"7 {VIP}:80/TCP 00000000000000ab 7 {ONE}:8080/TCP (3, 42.9%)",
        f"{TWO}:8080/TCP (4, 57.1%)",
        f"8 {VIP}:81/TCP 00000000000000cd {MAGLEV_PART + 1} {ONE}:8080/TCP ({MAGLEV_PART}, 99.5%)",
        "missing (1, 0.5%)",
    ]
    assert [each["slots"] for each in cluster.json("bpf", "lb", "maglev", "list")[0]["backends"]] == [3, 4]


def test_nat() -> None:
    """A pod that got another port, both directions; a ping; an answer to a client of a frontend."""
    node, remote = address16("192.168.3.11"), address16("198.51.100.9")
    later, seen = 30_400_000_000, int(CtFlag.SEEN_REPLY)

    def way(direction: NatDirection, local: bytes, port: int) -> NatKey:
        return NatKey(
            local=local, local_port=port, remote=remote, remote_port=443, protocol=6, direction=direction
        )

    pod, ping = address16(ONE), NatKey(local=node, local_port=7, remote=remote, protocol=1, direction=1)
    entries = {
        way(NatDirection.OUT, pod, 4000): NatValue(address=node, port=49152),
        way(NatDirection.BACK, node, 49152): NatValue(address=pod, port=4000, expires=later, flags=seen),
        ping: NatValue(address=address16("fd00::1"), port=7, expires=later, frontend=3),
    }
    found = r.nat_records(entries.items(), 0)

    assert [r.nat_line(record) for record in found] == [
        "ICMP IN 198.51.100.9:0 -> 192.168.3.11:7 XLATE_DST [fd00::1]:7 expires=30s Flags=[  ] RevNAT=3",
        f"TCP OUT {ONE}:4000 -> 198.51.100.9:443 XLATE_SRC 192.168.3.11:49152 RevNAT=0",
        f"TCP IN 198.51.100.9:443 -> 192.168.3.11:49152 XLATE_DST {ONE}:4000 expires=30s "
        "Flags=[ SeenReply ] RevNAT=0",
    ]
    assert [record["translated"] for record in found] == ["destination", "source", "destination"]


def test_connections_are_forgotten_only_when_somebody_says_so(cluster: Any) -> None:
    one = CtKey(low=address16(ONE), high=address16(TWO), low_port=1, high_port=2, protocol=6)
    for where in cluster.bpffs.values():
        with open_pinned(where, CT) as connections:
            connections.put(one, CtValue())

    asked = cluster.run("bpf", "ct", "flush")
    assert asked.exit_code == 1
    assert "This makes node1, node2 forget all connections." in asked.stderr
    assert len(cluster.json("bpf", "ct", "list", "global")) == 2

    done = cluster.run("bpf", "ct", "flush", "global", "--yes", "--node", "node2")
    assert done.stdout == "node2: 1 connections forgotten\n"
    assert [each["node"] for each in cluster.json("bpf", "ct", "list")] == ["node1"]
