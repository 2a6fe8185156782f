"""Tunnel mode: what from_pod hands to the tunnel, and whom from_overlay believes, with real VXLAN packets."""

import socket
import sys
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from msgspec.structs import replace
from scapy.layers.l2 import Ether

from cirri.layout import (
    DropReason,
    EndpointFlag,
    EventType,
    IpcacheKey,
    IpcacheValue,
    PolicyDirection,
    RuntimeFlag,
    TraceState,
    address16,
)
from cirri.testing.datapath import (
    CIDR_IDENTITY,
    HOST4,
    HOST6,
    NEXT_HOP4,
    NEXT_HOP6,
    R4,
    R6,
    R_IDENTITY,
    TC_SHOT,
    A,
    B,
    Entry,
    World,
)
from cirri.testing.fronts import BIND, serve
from cirri.testing.packets import AWAY, FAMILIES, LAST_HOP, STACK, V4, V6, Case, Do, Family, Send, frame, play
from cirri.testing.sockets import Echo, socket_in
from cirri.testing.two_nodes import FROM_OVERLAY, TwoNodes

NEW = ("new",)


def tunnels(world: World) -> None:
    """Tunnel mode; the uplink stands for the tunnel's device, since a test run wants a real one."""
    for address in (R4, R6):
        value = IpcacheValue(identity=R_IDENTITY, node=address16(NEXT_HOP4))
        world.ipcache.put(IpcacheKey.of(ip_network(address)), value)
    world.runtime.put(0, replace(world.runtime[0], tunnel_ifindex=world.uplink))


def towards_ipv6(world: World) -> None:
    """The other node is known by its IPv6 address alone."""
    value = IpcacheValue(identity=R_IDENTITY, node=address16(NEXT_HOP6))
    world.ipcache.put(IpcacheKey.of(ip_network(R6)), value)
    world.raise_epoch()


def rows(f: Family) -> list[Case]:
    remote = f.udp(f.a, f.r)
    cases = [
        Case("to a pod elsewhere", (Do(tunnels), Send("A", remote, AWAY, NEW), Send("A", remote, AWAY))),
        Case("to a pod here", (Do(tunnels), Send("A", f.udp(f.a, f.b), "B", NEW))),
        Case("to the world", (Do(tunnels), Send("A", f.udp(f.a, f.world), STACK, NEW))),
        Case("last hop", (Do(tunnels), Send("A", f.udp(f.a, f.r, ttl=1), LAST_HOP, NEW))),
        Case(
            "too long for the device",
            (Do(tunnels), Send("A", f.udp(f.a, f.r, 1, 2, size=1473), LAST_HOP, NEW)),
        ),
        Case(
            "denied",
            (
                Do(tunnels),
                Send("A", remote, DropReason.POLICY, ("egress POLICY match=0 rule=0",)),
            ),
            {"A": EndpointFlag.ENFORCE_EGRESS},
        ),
        Case("from elsewhere, not by the tunnel", (Do(tunnels), Send("net", f.udp(f.r, f.a), "A", NEW))),
    ]
    return [Case(f"tunnel {f.name} {c.id}", c.steps, c.flags, c.entries) for c in cases]


CASES = [case for f in FAMILIES for case in rows(f)] + [
    Case(
        "tunnel v6 to a node without IPv4",
        (Do(tunnels), Do(towards_ipv6), Send("A", V6.udp(V6.a, V6.r), DropReason.NO_TUNNEL_ENDPOINT)),
    )
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_from_pod(shared_world: World, case: Case) -> None:
    play(shared_world, case)


def test_what_came_by_no_tunnel_is_dropped(shared_world: World) -> None:
    shared_world.reset()
    result = shared_world.run(FROM_OVERLAY, frame("net", V4.udp(V4.r, V4.a)), shared_world.uplink)
    assert result.action == TC_SHOT
    assert [e.reason for e in result.events] == [DropReason.NO_TUNNEL_KEY]


# with real packets ---------------------------------------------------------------


@pytest.fixture(scope="module", params=["programs", "device"])
def pair(built: object, request: pytest.FixtureRequest) -> Iterator[TwoNodes]:
    """Two nodes with a tunnel between them, and no route by which the wire would know their pods; who makes
    most of the tunnel's packets."""
    made = TwoNodes()
    try:
        made.start()
        made.tunnel(by_programs=request.param == "programs")
        yield made
    finally:
        made.stop()


WAYS = {
    "pod to pod": (("A", R4), ("A", R6)),
    "back": (("R", B.address4), ("R", B.address6)),
    "node to pod": (("n1", R4), ("n1", R6)),
    "pod to node": (("R", HOST4), ("R", HOST6)),
    "node to node": (("n1", NEXT_HOP4), ("n2", HOST6)),
    "pod to pod here": (("A", B.address4), ("A", B.address6)),
}


@pytest.mark.parametrize("size", [56, 1422, 3000])
@pytest.mark.parametrize("way", WAYS)
def test_ping(pair: TwoNodes, way: str, size: int) -> None:
    """1422 bytes fit the tunnel over IPv4; of 3000 the node makes pieces, or tells an IPv6 sender to."""
    for where, address in WAYS[way]:
        # These pods' devices take 1500 bytes: first who asks is told, then who answers.
        told = 2 if ":" in address and size > 56 and where in "AR" else 0
        said = [pair.ping(where, address, size=size, wait=0.5) for _ in range(told)]
        said.append(pair.ping(where, address, size=size))
        assert said[-1] == f"{address} reply", (where, address, said)


SEND = """
import socket, sys
source, destination, payload = sys.argv[1:]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((source, 0))
s.sendto(bytes.fromhex(payload), (destination, 8472))
"""
ODD = "192.168.3.99"
"""An address of node 2 that nobody was told of."""
POD_VNI, NONE = 4242, None
BELIEVED = {
    "as ipcache has it": (NEXT_HOP4, R_IDENTITY, "r", R_IDENTITY),
    "a pod that ipcache does not know yet": (NEXT_HOP4, POD_VNI, "r", POD_VNI),
    "nothing named": (NEXT_HOP4, 0, "r", R_IDENTITY),
    "the host": (NEXT_HOP4, 1, "r", R_IDENTITY),
    "a reserved identity": (NEXT_HOP4, 255, "r", R_IDENTITY),
    "a node's own packet": (NEXT_HOP4, 0, "node", 6),
    "a client outside, under the node's address": (NEXT_HOP4, 9, "node", 9),
    "an address that is no node's": (ODD, R_IDENTITY, "r", DropReason.UNKNOWN_SENDER),
    "a pod of this node": (NEXT_HOP4, R_IDENTITY, "b", DropReason.INVALID_SOURCE_IP),
    "this node": (NEXT_HOP4, R_IDENTITY, "host", DropReason.INVALID_SOURCE_IP),
}


def vxlan(vni: int, packet: object) -> str:
    """The payload of a tunnel's packet (RFC 7348, section 5), as hexadecimal digits."""
    inner = bytes(Ether(src="02:00:00:00:00:77", dst="02:00:00:00:00:78") / packet)
    return (b"\x08\0\0\0" + (vni << 8).to_bytes(4, "big") + inner).hex()


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
@pytest.mark.parametrize("who", BELIEVED)
def test_who_is_believed(pair: TwoNodes, who: str, f: Family) -> None:
    """By what address the tunnel's packet comes, whom it names, what it holds: who sent it, or why not."""
    outer, vni, source, outcome = BELIEVED[who]
    world = pair.worlds[0]
    world.ct.clear()
    pair.ip("n2", f"addr replace {ODD}/24 dev uplink")
    world.events()
    pair.run("n2", sys.executable, "-c", SEND, outer, HOST4, vxlan(vni, f.udp(getattr(f, source), f.a)))
    events = [e for e in world.events() if e.protocol == 17 and e.destination == address16(f.a)]
    if isinstance(outcome, DropReason):
        assert [(e.type, e.reason) for e in events] == [(EventType.DROP, outcome)]
    else:
        found = [(e.type, e.source_identity, e.destination_identity) for e in events]
        assert found == [(EventType.TRACE, outcome, A.identity)]


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
def test_a_client_outside_stays_one(pair: TwoNodes, f: Family) -> None:
    """Node 1 sends it on under its own address, and says that it is of the world, not of which prefix."""
    first, second = pair.worlds
    before = first.runtime[0]
    key = IpcacheKey.of(ip_network(f.node))
    value = first.ipcache[key]
    try:
        first.runtime.put(0, replace(before, nat4=address16(HOST4), nat6=address16(HOST6)))
        first.ipcache.put(key, replace(value, identity=CIDR_IDENTITY))
        serve(f.host, 30080, f.r).what(first)
        second.events()
        family = socket.AF_INET if f.version == 4 else socket.AF_INET6
        with socket_in(pair.ns("n2"), socket.SOCK_DGRAM, family) as one:
            one.sendto(b"hello", (f.host, 30080))
        found = [e for e in second.events() if e.state == TraceState.NEW]
        assert [(e.source, e.source_identity) for e in found] == [(address16(f.host), f.world_identity)]
    finally:
        first.ipcache.put(key, value)
        for each in first.lb.values():
            each.clear()
        first.runtime.put(0, replace(before, lb_epoch=first.runtime[0].lb_epoch + 1))


def test_a_pod_cannot_speak_as_a_node(pair: TwoNodes) -> None:
    """What a pod puts into a tunnel's packet of its own does not come out at the other node."""
    second = pair.worlds[1]
    second.events()
    payload = vxlan(POD_VNI, V4.udp(V4.b, R4))
    pair.run("A", sys.executable, "-c", SEND, A.address4, NEXT_HOP4, payload)
    assert [e.reason for e in second.events() if e.type == EventType.DROP] == [DropReason.UNKNOWN_SENDER]


def test_the_identity_in_the_tunnel_is_judged_before_the_address_is_known(pair: TwoNodes) -> None:
    """R's node has another identity for A's address still; the rule that lets A in holds all the same."""
    second = pair.worlds[1]
    key = IpcacheKey.of(ip_network(A.address4))
    value = second.ipcache[key]
    second.ipcache.put(key, replace(value, identity=POD_VNI))
    second.ct.clear()
    second.events()
    try:
        second.raise_epoch()
        assert pair.ping("A", R4) == f"{R4} reply"
        new = [e.source_identity for e in second.events() if e.state == TraceState.NEW]
        assert new == [A.identity]
    finally:
        second.ipcache.put(key, value)
        second.raise_epoch()


CLOSED = {"H": EndpointFlag.ENFORCE_INGRESS | EndpointFlag.ENFORCE_EGRESS}
IN, OUT = PolicyDirection.INGRESS, PolicyDirection.EGRESS
BETWEEN = (Entry("H", IN, 6, 17, 8472, 16), Entry("H", OUT, 6, 17, 8472, 16))
"""What the service adds to the node's policy: the tunnels themselves."""
FIREWALL = {
    "pods alone": ((), ("A", R4), True),
    "to a pod, not let": ((), ("n1", R4), False),
    "to a pod, let": ((Entry("H", OUT, R_IDENTITY),), ("n1", R4), True),
    "from a pod, not let": ((), ("R", HOST4), False),
    "from a pod, let": ((Entry("H", IN, R_IDENTITY),), ("R", HOST4), True),
    "from a pod, let, v6": ((Entry("H", IN, R_IDENTITY),), ("R", HOST6), True),
}


@pytest.mark.parametrize("name", FIREWALL)
def test_the_node_is_judged_in_the_tunnel_too(pair: TwoNodes, name: str) -> None:
    entries, (where, address), passes = FIREWALL[name]
    world = pair.worlds[0]
    before = world.runtime[0]
    world.ct.clear()
    try:
        world.enforce(CLOSED, (*BETWEEN, *entries))
        world.raise_epoch()
        said = pair.ping(where, address, wait=2 if passes else 0.3)
        assert said == (f"{address} reply" if passes else "silence")
    finally:
        for each in (HOST4, HOST6, "::"):
            world.endpoints.delete(address16(each))
        world.policy.clear()
        world.ct.clear()
        world.runtime.put(0, replace(before, epoch=world.runtime[0].epoch + 1))


def hears(pair: TwoNodes, address: str, port: int, kind: socket.SocketKind) -> str:
    """What pod A hears from there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket_in(pair.ns("A"), kind, family) as one:
        one.settimeout(3)
        try:
            one.connect((address, port))
            one.send(b"ping")
            return one.recv(4).decode()
        except OSError as error:
            return error.strerror or str(error)


FRONT = 30080


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
@pytest.mark.parametrize("who", ["nobody", "a pod there", "that node", "a pod of the client's node"])
def test_a_frontend_of_the_other_node(pair: TwoNodes, who: str, f: Family) -> None:
    """A pod asks another node for a Service, as for a host port: served there, answered, and refused."""
    second, own = pair.worlds[1], f.node
    backends = {
        "nobody": (),
        "a pod there": (f.r,),
        "that node": (own,),
        "a pod of the client's node": (f.b,),
    }
    before = second.runtime[0]
    for address in (NEXT_HOP4, NEXT_HOP6):
        second.ipcache.put(IpcacheKey.of(ip_network(address)), IpcacheValue(identity=1))
    nat = {"nat4": address16(NEXT_HOP4), "nat6": address16(NEXT_HOP6)}
    second.runtime.put(0, replace(before, flags=RuntimeFlag.NODE_SERVES, **nat))
    serve(own, FRONT, *backends[who]).what(second)
    servers = [Echo(pair.ns(name), BIND, socket.AF_INET6) for name in ("B", "R", "n2")]
    try:
        expected = "Connection refused" if who == "nobody" else "ping"
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            assert hears(pair, own, FRONT, kind) == expected, kind
        counts = [each.connections for each in servers]
        assert counts == [who == "a pod of the client's node", who == "a pod there", who == "that node"]
    finally:
        for each in servers:
            each.close()
        for one in second.lb.values():
            one.clear()
        second.runtime.put(0, replace(before, epoch=second.runtime[0].epoch + 1))
