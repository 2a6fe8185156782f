"""Tunnels' packets that programs make and open themselves, and what they leave to the kernel's device."""

import socket
import struct
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
from msgspec.structs import replace
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from cirri.layout import (
    WAYS,
    DropReason,
    EndpointFlag,
    IpcacheKey,
    IpcacheValue,
    PolicyDirection,
    RuntimeFlag,
    address16,
)
from cirri.maps import SkBuff, open_per_cpu, test_run
from cirri.testing.datapath import (
    CIDR_IDENTITY,
    HOST4,
    NEXT_HOP4,
    R4,
    R6,
    R_IDENTITY,
    TC_OK,
    TC_REDIRECT,
    TC_SHOT,
    UNLISTED4,
    A,
    Entry,
    Result,
    World,
    routed,
)
from cirri.testing.packets import (
    FAMILIES,
    FROM_NETWORK,
    FROM_POD,
    NEIGHBOUR_MAC,
    UPLINK_MAC,
    V4,
    V6,
    Family,
    drop_name,
    frame,
    send,
)
from cirri.testing.two_nodes import TUNNEL_PORT

FAR_NODE = "198.51.100.200"
"""It is reached by a router."""
OUTER = 50


def dig(world: World, node: str = NEXT_HOP4, **runtime: Any) -> None:
    """Tunnel mode, R being behind *node*; the uplink stands for the tunnel's device, which is not asked."""
    world.reset()
    for address, identity in ((R4, R_IDENTITY), (R6, R_IDENTITY), (node, 6)):
        value = IpcacheValue(identity=identity, node=address16(node))
        world.ipcache.put(IpcacheKey.of(ip_network(address)), value)
    settings = {"tunnel_ifindex": world.uplink, "tunnel_port": TUNNEL_PORT, "nat4": address16(HOST4)}
    world.runtime.put(0, replace(world.runtime[0], **settings | runtime))


def tagged(f: Family, ecn: int) -> Packet:
    """A datagram of A to R whose IP header has *ecn*."""
    packet = f.udp(f.a, f.r)
    setattr(packet, "tos" if f.version == 4 else "tc", 0x48 | ecn)
    return packet


MADE: dict[str, tuple[Callable[[Family], Packet], int]] = {
    "a datagram": (lambda f: f.udp(f.a, f.r), 0),
    "a segment": (lambda f: f.tcp(f.a, f.r, "S"), 0),
    "an echo": (lambda f: f.ping(f.a, f.r), 0),
    "a first fragment": (lambda f: f.fragments(f.a, f.r, UDP(sport=1, dport=2) / Raw(bytes(64)))[0], 0),
    "what just fits": (lambda f: f.udp(f.a, f.r, size=1472 if f.version == 4 else 1452), 0),
    "ECT(1)": (lambda f: tagged(f, 1), 1),
    "ECT(0)": (lambda f: tagged(f, 2), 2),
    "congestion experienced": (lambda f: tagged(f, 3), 2),
}
"""What A sends to R, and the two bits of ECN outside (RFC 6040, 4.1)."""


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
@pytest.mark.parametrize("what", MADE)
def test_made(shared_world: World, what: str, f: Family) -> None:
    make, ecn = MADE[what]
    dig(shared_world)
    sent = frame("A", make(f))
    result = send(shared_world, "A", sent)
    assert result.action == TC_REDIRECT
    assert result.metrics == {(0, 2): (1, len(sent))}
    assert made(result.packet, vni=A.identity, ecn=ecn) == routed(sent, None)


def made(packet: bytes, *, vni: int, ecn: int = 0, node: str = NEXT_HOP4) -> bytes:
    """What is inside the tunnel's *packet*, whose head has to be as our nodes make it."""
    identification, port = struct.unpack("!H", packet[18:20])[0], struct.unpack("!H", packet[34:36])[0]
    assert port >= 49152
    outer = IP(src=HOST4, dst=node, ttl=64, tos=ecn, id=identification, flags=0) / UDP(
        sport=port, dport=TUNNEL_PORT, chksum=0
    )
    head = bytes(outer / VXLAN(flags=8, vni=vni) / Raw(packet[14 + OUTER - 14 :]))
    assert packet[14:OUTER] == head[: OUTER - 14]
    assert packet[12:14] == b"\x08\0"
    return packet[OUTER:]


def test_a_connection_has_its_port(shared_world: World) -> None:
    """Routers and NICs spread tunnels by their source ports (RFC 7348, 5)."""
    dig(shared_world)
    ports = [
        send(shared_world, "A", V4.udp(V4.a, V4.r, port, 53)).packet[34:36] for port in range(5000, 5016)
    ]
    again = send(shared_world, "A", V4.udp(V4.a, V4.r, 5000, 53)).packet[34:36]
    assert again == ports[0]
    assert len(set(ports)) > 8


def test_identifications_differ(shared_world: World) -> None:
    """Routers may cut what is too long for them, and the other node puts the pieces together."""
    dig(shared_world)
    assert len({send(shared_world, "A", V4.udp(V4.a, V4.r)).packet[18:20] for _ in range(16)}) > 8


def test_an_identity_that_does_not_travel(shared_world: World) -> None:
    dig(shared_world)
    shared_world.set_pod("A", policy_id=0, flags=0, identity=CIDR_IDENTITY)
    made(send(shared_world, "A", V4.udp(V4.a, V4.r)).packet, vni=0)


def test_the_way_is_the_routing_tables(shared_world: World) -> None:
    """A node on the wire is its own next hop, others are behind the router."""
    with open_per_cpu(shared_world.bpffs, WAYS) as ways:
        for node in (NEXT_HOP4, FAR_NODE):
            dig(shared_world, node)
            made(send(shared_world, "A", V4.udp(V4.a, V4.r)).packet, vni=A.identity, node=node)
            found = [each for places in ways.to_dict().values() for each in places if each.expires]
            assert [(each.node, each.next) for each in found] == [
                (int.from_bytes(socket.inet_aton(node)), int.from_bytes(socket.inet_aton(NEXT_HOP4)))
            ]


LEFT: dict[str, dict[str, Any]] = {
    "the host firewall is on": {"flags": RuntimeFlag.HOST_FIREWALL},
    "the port is not known": {"tunnel_port": 0},
    "this node has no IPv4 address": {"nat4": bytes(16)},
    "no route to the node": {"node": UNLISTED4},
}
"""What the device makes tunnels of."""


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
@pytest.mark.parametrize("what", LEFT)
def test_left_to_the_device(shared_world: World, what: str, f: Family) -> None:
    dig(shared_world, **LEFT[what])
    sent = frame("A", f.udp(f.a, f.r))
    result = send(shared_world, "A", sent)
    assert (result.action, result.packet) == (TC_REDIRECT, routed(sent, None))
    assert result.metrics == {(0, 2): (1, len(sent))}


@pytest.mark.parametrize("packet", [V4.udp(V4.a, V4.r), V4.tcp(V4.a, V4.r, "S")], ids=["UDP", "TCP"])
def test_several_in_one_that_programs_cannot_make_longer(shared_world: World, packet: Packet) -> None:
    """Of UDP they do not try; the test's TCP is refused, since it is not marked as such."""
    dig(shared_world)
    sent = frame("A", packet / Raw(bytes(1500)))
    result = run(shared_world, FROM_POD, sent, shared_world.ifindex["A"])
    assert (result.action, result.packet) == (TC_REDIRECT, routed(sent, None))
    assert result.metrics == {(0, 2): (1, len(sent))}


def run(world: World, section: str, packet: bytes, device: int) -> Result:
    """:meth:`World.run` of several packets in one."""
    context = SkBuff(ifindex=device, gso_size=1000, gso_segs=2)
    assert world.apart
    done = world.apart.call(lambda: test_run(world.programs[section], packet, context=context))
    return Result(done.action, done.packet, world.counted_since(), world.events())


# opened --------------------------------------------------------------------------


def outside(inner: Packet | bytes, vni: int = R_IDENTITY, **more: Any) -> bytes:
    """The frame that brings *inner*, an Ethernet frame; *more*: fields of ``ip``, ``udp``, ``vxlan``."""
    ip = {"src": NEXT_HOP4, "dst": HOST4, "id": 77} | more.get("ip", {})
    udp = {"sport": 50000, "dport": TUNNEL_PORT, "chksum": 0} | more.get("udp", {})
    vxlan = {"flags": 8, "vni": vni} | more.get("vxlan", {})
    outer = IP(**ip) / UDP(**udp) / VXLAN(**vxlan) / Raw(bytes(inner))
    return bytes(Ether(src=NEIGHBOUR_MAC, dst=UPLINK_MAC) / outer) + bytes(more.get("behind", 0))


def sent_by_r(f: Family, packet: Packet | None = None) -> bytes:
    """The frame of R to A as R's node got it."""
    return bytes(Ether(src="0a:00:00:00:00:0c", dst="0e:00:00:00:00:0c") / (packet or f.udp(f.r, f.a)))


def opened(f: Family, packet: Packet | None = None) -> bytes:
    """What A gets of it."""
    return routed(frame("net", packet or f.udp(f.r, f.a)), A)


BELIEVED = {"as named": (R_IDENTITY, R_IDENTITY), "unknown yet": (4242, 4242), "not named": (0, R_IDENTITY)}


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
@pytest.mark.parametrize("who", BELIEVED)
def test_opened(shared_world: World, who: str, f: Family) -> None:
    vni, identity = BELIEVED[who]
    dig(shared_world)
    result = shared_world.run(FROM_NETWORK, outside(sent_by_r(f), vni), shared_world.uplink)
    assert (result.action, result.packet) == (TC_REDIRECT, opened(f))
    assert result.metrics == {(0, 1): (1, len(sent_by_r(f)))}
    assert [(e.source_identity, e.destination_identity) for e in result.events] == [(identity, A.identity)]


CLOSED: dict[str, Callable[[Family], bytes]] = {
    "an address that is no node's": lambda f: outside(sent_by_r(f), ip={"src": FAR_NODE}),
    "a pod": lambda f: outside(sent_by_r(f), ip={"src": R4}),
    "this node": lambda f: outside(sent_by_r(f), ip={"src": HOST4}),
    "to another address of this node": lambda f: outside(sent_by_r(f), ip={"dst": UNLISTED4}),
    "through this node": lambda f: outside(sent_by_r(f), ip={"dst": FAR_NODE}),
    "another port": lambda f: outside(sent_by_r(f), udp={"dport": 4789}),
    "a checksum": lambda f: outside(sent_by_r(f), udp={"chksum": 0x1234}),
    "a wrong length": lambda f: outside(sent_by_r(f), udp={"len": 60}),
    "something behind it": lambda f: outside(sent_by_r(f), behind=4),
    "a wrong header checksum": lambda f: outside(sent_by_r(f), ip={"chksum": 1}),
    "a fragment": lambda f: outside(sent_by_r(f), ip={"flags": "MF"}),
    "IP options": lambda f: outside(sent_by_r(f), ip={"options": b"\x01\x01\x01\0"}),
    "congestion on the way": lambda f: outside(sent_by_r(f), ip={"tos": 3}),
    "another protocol in it": lambda f: outside(sent_by_r(f), vxlan={"flags": 0x0C}),
    "no VNI": lambda f: outside(sent_by_r(f), vxlan={"flags": 0}),
    "to this node": lambda f: outside(sent_by_r(f, f.udp(f.r, f.host))),
    "to nobody": lambda f: outside(sent_by_r(f, f.udp(f.r, f.world))),
    "the last hop": lambda f: outside(sent_by_r(f, f.udp(f.r, f.a, ttl=1))),
    "no IP": lambda f: outside(Ether() / ARP()),
    "a short frame": lambda f: outside(sent_by_r(f)[: 14 + 12]),
}
"""What the device opens, or drops."""


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
@pytest.mark.parametrize("what", CLOSED)
def test_not_opened(shared_world: World, what: str, f: Family) -> None:
    dig(shared_world)
    sent = CLOSED[what](f)
    result = shared_world.run(FROM_NETWORK, sent, shared_world.uplink)
    assert result == Result(TC_OK, sent, {}, [])


@pytest.mark.parametrize("what", ["the port is not known", "this node has no IPv4 address"])
def test_not_opened_here(shared_world: World, what: str) -> None:
    dig(shared_world, **LEFT[what])
    sent = outside(sent_by_r(V4))
    assert shared_world.run(FROM_NETWORK, sent, shared_world.uplink) == Result(TC_OK, sent, {}, [])


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
def test_datagrams_in_one_are_not_opened(shared_world: World, f: Family) -> None:
    dig(shared_world)
    sent = outside(sent_by_r(f, f.udp(f.r, f.a, size=2000)))
    assert run(shared_world, FROM_NETWORK, sent, shared_world.uplink) == Result(TC_OK, sent, {}, [])


def test_with_the_host_firewall_the_tunnel_is_judged(shared_world: World) -> None:
    dig(shared_world)
    rule = Entry("H", PolicyDirection.INGRESS, 6, 17, TUNNEL_PORT, 16, rule=7)
    for entries, action in (((), TC_SHOT), ((rule,), TC_OK)):
        shared_world.enforce({"H": EndpointFlag.ENFORCE_INGRESS}, entries)
        shared_world.raise_epoch()
        sent = outside(sent_by_r(V4))
        assert shared_world.run(FROM_NETWORK, sent, shared_world.uplink)[:2] == (action, sent)


INSIDE = {
    "no rule": (V4.udp(V4.r, V4.a), "POLICY", {"A": EndpointFlag.ENFORCE_INGRESS}),
    "a pod of this node": (V4.udp(V4.b, V4.a), "INVALID_SOURCE_IP", {}),
    "this node": (V6.udp(V6.host, V6.a), "INVALID_SOURCE_IP", {}),
    "no protocol": (V6.ip(V6.r, V6.a, nh=253) / Raw(bytes(8)), "UNKNOWN_L4", {}),
    "a broken segment": (V4.ip(V4.r, V4.a) / TCP(dataofs=3), "CT_INVALID_HEADER", {}),
}


@pytest.mark.parametrize("what", INSIDE)
def test_what_is_inside_is_judged(shared_world: World, what: str) -> None:
    packet, reason, flags = INSIDE[what]
    dig(shared_world)
    shared_world.enforce(flags)
    sent = sent_by_r(V4, packet)
    result = shared_world.run(FROM_NETWORK, outside(sent), shared_world.uplink)
    drops = [(drop_name(e.reason), e.endpoint, e.length) for e in result.events if e.reason]
    assert drops[-1] == (reason, A.id, len(sent))
    assert result.action == TC_SHOT
    assert result.metrics == {(int(DropReason[reason]), 1): (1, len(sent))}
