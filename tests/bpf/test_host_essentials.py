"""What the host firewall never blocks, lest nobody could mend the node's policy; and what looks like it."""

import subprocess
from typing import Any

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Solicit
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    IPv6,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from cirri.layout import DropReason, EndpointFlag, PolicyDirection
from cirri.testing.datapath import LINK_LOCAL, NEXT_HOP6, Entry, World
from cirri.testing.packets import (
    HOST,
    NEIGHBOUR_MAC,
    STACK,
    UPLINK_MAC,
    V4,
    V6,
    Case,
    Send,
    change,
    connections,
    play,
)

IN, OUT = PolicyDirection.INGRESS, PolicyDirection.EGRESS
DENY_BOTH = EndpointFlag.ENFORCE_INGRESS | EndpointFlag.ENFORCE_EGRESS
NONE_IN, NONE_OUT = "ingress POLICY match=0 rule=0", "egress POLICY match=0 rule=0"
CLOSED = {"H": DENY_BOTH}


def let(direction: PolicyDirection, peer: int, protocol: int = 0, port: int = 0, rule: int = 1) -> Entry:
    """An entry of the node's policy."""
    return Entry("H", direction, peer, protocol, port, 16 if protocol else 0, rule)


def ether(packet: Any, destination: str = UPLINK_MAC) -> bytes:
    return bytes(Ether(src=NEIGHBOUR_MAC, dst=destination) / packet)


def link(*options: Any, **fields: Any) -> Any:
    packet = IPv6(**{"src": "fe80::9", "dst": "ff02::1", "hlim": 255, **fields})
    for option in options:
        packet = packet / option
    return packet


GROUP4, GROUP6 = "224.0.0.251", "ff02::fb"
DISCOVER = UDP(sport=68, dport=67) / BOOTP(op=1) / DHCP(options=[("message-type", "discover"), "end"])
OFFER = UDP(sport=67, dport=68) / BOOTP(op=2) / DHCP(options=[("message-type", "offer"), "end"])
ESSENTIAL = {
    "ARP request": ARP(op=1, pdst=V4.host),
    "ARP reply": ARP(op=2),
    "LLDP": bytes(Ether(src=NEIGHBOUR_MAC, dst="01:80:c2:00:00:0e", type=0x88CC) / Raw(bytes(46))),
    "neighbour solicitation": link(ICMPv6ND_NS(tgt=V6.host)),
    "neighbour advertisement": link(ICMPv6ND_NA(tgt=V6.node), dst=V6.host),
    "router solicitation": link(ICMPv6ND_RS(), dst="ff02::2"),
    "router advertisement": link(ICMPv6ND_RA()),
    "redirect": link(ICMPv6ND_Redirect(), dst=V6.host),
    "duplicate address detection": link(ICMPv6ND_NS(tgt=V6.host), src="::"),
    "listener report": link(ICMPv6MLReport2(), dst="ff02::16", hlim=1),
    "IGMP": IP(src="192.168.3.9", dst="224.0.0.22", proto=2, ttl=1) / Raw(bytes(16)),
}
IN_ONLY = {
    "DHCP offer": IP(src="192.168.3.1", dst="255.255.255.255") / OFFER,
    "DHCP acknowledgement": IP(src="192.168.3.1", dst=V4.host) / OFFER,
    "DHCPv6": IPv6(src="fe80::1", dst=V6.host) / UDP(sport=547, dport=546) / Raw(bytes(8)),
}
OUT_ONLY = {
    "DHCP discover": IP(src="0.0.0.0", dst="255.255.255.255") / DISCOVER,
    "DHCP renewal": IP(src=V4.host, dst="192.168.3.1") / DISCOVER,
    "DHCPv6": IPv6(src="fe80::2", dst="ff02::1:2") / UDP(sport=546, dport=547) / DHCP6_Solicit(),
}
CASES = [
    *(
        Case(f"{n}: from the wire", (Send("net", p, STACK), connections(0)), CLOSED)
        for n, p in (ESSENTIAL | IN_ONLY).items()
    ),
    *(
        Case(f"{n}: to the wire", (Send("node", p, STACK), connections(0)), CLOSED)
        for n, p in (ESSENTIAL | OUT_ONLY).items()
    ),
    *(
        Case(f"not quite {name}", (Send(at, packet, DropReason.POLICY, (told,)),), CLOSED)
        for name, at, packet, told in (
            (
                "DHCP: to another's port",
                "node",
                IP(src=V4.host, dst=V4.world) / UDP(sport=68, dport=53),
                NONE_OUT,
            ),
            ("DHCP: to its server", "net", IP(src=V4.world, dst=V4.host) / UDP(sport=68, dport=67), NONE_IN),
            (
                "DHCPv6: to its server",
                "net",
                IPv6(src=V6.world, dst=V6.host) / UDP(sport=546, dport=547),
                NONE_IN,
            ),
            ("IGMP over IPv6", "net", IPv6(src=V6.world, dst=V6.host, nh=2) / Raw(bytes(16)), NONE_IN),
            ("DHCP over IPv6", "net", IPv6(src=V6.world, dst=V6.host) / UDP(sport=67, dport=68), NONE_IN),
            (
                "DHCP: from its server",
                "node",
                IP(src=V4.host, dst=V4.world) / UDP(sport=67, dport=68),
                NONE_OUT,
            ),
        )
    ),
    *(
        Case(
            f"{name}: like any other packet",
            (
                Send("net", packet(f), DropReason.POLICY, (NONE_IN,)),
                change(CLOSED, (let(IN, f.world_identity, 17, 5353, 3),)),
                Send("net", packet(f), HOST, ("ingress allow match=2 rule=3", "new")),
            ),
            CLOSED,
        )
        for name, f, packet in (
            ("multicast, v4", V4, lambda f: f.udp(f.world, GROUP4, 5353, 5353)),
            ("multicast, v6", V6, lambda f: f.udp("fe80::9", GROUP6, 5353, 5353)),
            ("broadcast", V4, lambda f: f.udp(f.world, "255.255.255.255", 5353, 5353)),
            ("broadcast to the segment", V4, lambda f: f.udp(f.world, "192.168.3.255", 5353, 5353)),
            ("a link-local address", V6, lambda f: f.udp("fe80::9", LINK_LOCAL, 5353, 5353)),
        )
    ),
    Case(
        "multicast of its own, v4",
        (Send("node", V4.udp(V4.host, GROUP4, 5353, 5353), DropReason.POLICY, (NONE_OUT,)),),
        CLOSED,
    ),
    Case(
        "fragmentation needed, always",
        (
            Send("net", IP(src=V4.world, dst=V4.host) / ICMP(type=3, code=4) / Raw(bytes(28)), HOST),
            Send("node", IP(src=V4.host, dst=V4.world) / ICMP(type=3, code=4) / Raw(bytes(28)), HOST),
            connections(0),
        ),
        CLOSED,
    ),
    Case(
        "a tag in the frame is the stack's",
        (Send("net", ether(Dot1Q(vlan=5) / V4.tcp(V4.world, V4.host, "S")), STACK),),
        CLOSED,
    ),
    Case("no address at all", (Send("A", V6.udp(V6.a, "::"), DropReason.UNROUTABLE),), {"H": 0}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_host_essentials(shared_world: World, case: Case) -> None:
    play(shared_world, case)


def test_without_any_route_arp_passes(shared_world: World) -> None:
    """To a node that can forward nowhere everything looks as if it were for the node."""
    assert shared_world.apart

    def route(command: str) -> None:
        subprocess.run(["ip", "-6", *command.split()], check=True, timeout=10)

    shared_world.apart.call(lambda: route("route del default"))
    try:
        names = ("ARP request", "ARP reply", "LLDP")
        play(shared_world, Case("ARP", tuple(Send("net", ESSENTIAL[name], STACK) for name in names), CLOSED))
    finally:
        shared_world.apart.call(lambda: route(f"route add default via {NEXT_HOP6}"))
