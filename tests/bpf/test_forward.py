"""Where packets go: delivery, spoofed sources, and headers that are no use.

Topology and addresses: ``cirri.testing.datapath``.
"""

import subprocess

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_LSRR, IPOption_NOP, IPOption_RR, IPOption_SSRR
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

from cirri.layout import DropReason, RuntimeConfig
from cirri.testing.datapath import EPOCH, A, B, World, routed
from cirri.testing.packets import (
    AWAY,
    FAMILIES,
    LAST_HOP,
    STACK,
    V4,
    V6,
    Case,
    Do,
    Family,
    Send,
    frame,
    play,
    send,
)

NEW = ("new",)


def own(packet: object, source: str = A.mac, destination: str = A.node_mac, **more: int) -> bytes:
    """A frame from A with an Ethernet header that may lie."""
    return bytes(Ether(src=source, dst=destination, **more) / packet)


def no_uplink(world: World) -> None:
    world.runtime.put(0, RuntimeConfig(epoch=EPOCH, uplink_ifindex=0))


def both(f: Family) -> list[Case]:
    """Rows that hold for either family."""
    syn = f.tcp(f.a, f.b, "S")
    cases = [
        Case("pod to pod, TCP", (Send("A", syn, "B", NEW), Send("B", f.tcp(f.b, f.a, "SA", 80, 40000), "A"))),
        Case(
            "pod to pod, UDP",
            (Send("A", f.udp(f.a, f.b), "B", NEW), Send("B", f.udp(f.b, f.a, 53, 5000), "A")),
        ),
        Case("pod to pod, echo", (Send("A", f.ping(f.a, f.b), "B", NEW), Send("B", f.pong(f.b, f.a), "A"))),
        Case("pod to pod, SCTP", (Send("A", f.sctp(f.a, f.b), "B", NEW),)),
        Case("pod to itself", (Send("A", f.tcp(f.a, f.a, "S"), "A", NEW),)),
        Case("pod to a pod elsewhere", (Send("A", f.tcp(f.a, f.r, "S"), AWAY, NEW),)),
        Case("pod to the host", (Send("A", f.tcp(f.a, f.host, "S"), STACK, NEW),)),
        Case("pod to the world", (Send("A", f.udp(f.a, f.world), STACK, NEW),)),
        Case("pod to a prefix of ipcache without a node", (Send("A", f.udp(f.a, f.cidr), STACK, NEW),)),
        Case("from a pod elsewhere", (Send("net", f.tcp(f.r, f.a, "S"), "A", NEW),)),
        Case("from the world", (Send("net", f.tcp(f.world, f.a, "S"), "A", NEW),)),
        Case("from the network, not for a pod", (Send("net", f.tcp(f.world, f.host, "S"), STACK),)),
        Case("from the network, for a pod elsewhere", (Send("net", f.tcp(f.world, f.r, "S"), STACK),)),
        Case("from the stack", (Send(">A", f.tcp(f.host, f.a, "S"), "A", NEW),)),
        Case(
            "from the stack, for another pod", (Send(">A", f.tcp(f.host, f.b, "S"), DropReason.UNROUTABLE),)
        ),
        Case("last hop, local", (Send("A", f.tcp(f.a, f.b, "S", ttl=1), LAST_HOP, NEW),)),
        Case("last hop, away", (Send("A", f.tcp(f.a, f.r, "S", ttl=1), LAST_HOP, NEW),)),
        Case("last hop, arriving", (Send("net", f.tcp(f.r, f.a, "S", ttl=1), LAST_HOP, NEW),)),
        Case("two hops are enough", (Send("A", f.tcp(f.a, f.b, "S", ttl=2), "B", NEW),)),
        Case(
            "no uplink yet",
            (Do(no_uplink), Send("A", f.tcp(f.a, f.r, "S"), DropReason.HOST_NOT_READY)),
        ),
        Case(
            "spoofed: the other pod's address",
            (Send("A", f.tcp(f.b, f.a, "S"), DropReason.INVALID_SOURCE_IP),),
        ),
        Case("spoofed: the world's address", (Send("A", f.udp(f.world, f.b), DropReason.INVALID_SOURCE_IP),)),
        Case("spoofed: the host's address", (Send("A", f.udp(f.host, f.b), DropReason.INVALID_SOURCE_IP),)),
        Case("spoofed: MAC", (Send("A", own(syn, source=B.mac), DropReason.INVALID_SOURCE_MAC),)),
        Case(
            "spoofed from the wire: a pod", (Send("net", f.tcp(f.b, f.a, "S"), DropReason.INVALID_SOURCE_IP),)
        ),
        Case("spoofed from the wire: host", (Send("net", f.udp(f.host, f.a), DropReason.INVALID_SOURCE_IP),)),
        Case(
            "unicast in a broadcast frame",
            (Send("A", own(syn, destination="ff:" * 5 + "ff"), DropReason.UNROUTABLE),),
        ),
        Case("VLAN tag", (Send("A", own(Dot1Q(vlan=5) / syn), DropReason.VLAN_FILTERED),)),
        Case(
            "VLAN tag, 802.1ad",
            (Send("A", own(Dot1AD(vlan=5) / syn, type=0x88A8), DropReason.VLAN_FILTERED),),
        ),
        Case("VLAN tag, from the stack", (Send(">A", own(Dot1Q(vlan=5) / syn), DropReason.VLAN_FILTERED),)),
        Case(
            "VLAN tag on the wire is the stack's", (Send("net", own(Dot1Q(vlan=5) / f.udp(f.r, f.a)), STACK),)
        ),
        Case("GRE", (Send("A", f.ip(f.a, f.b, **f.next(47)) / Raw(bytes(16)), DropReason.UNKNOWN_L4),)),
        Case(
            "ESP arriving",
            (Send("net", f.ip(f.r, f.a, **f.next(50)) / Raw(bytes(16)), DropReason.UNKNOWN_L4),),
        ),
        Case(
            "ICMP of the other family",
            (
                Send(
                    "A",
                    f.ip(f.a, f.b, **f.next(59 - f.icmp)) / Raw(b"\x08" + bytes(15)),
                    DropReason.UNKNOWN_L4,
                ),
            ),
        ),
        Case("SYN and FIN", (Send("A", f.tcp(f.a, f.b, "SF"), DropReason.CT_INVALID_HEADER),)),
        Case("SYN and RST", (Send("A", f.tcp(f.a, f.b, "SR"), DropReason.CT_INVALID_HEADER),)),
        Case(
            "TCP header longer than the packet",
            (Send("A", f.ip(f.a, f.b) / TCP(flags="S", dataofs=15), DropReason.CT_INVALID_HEADER),),
        ),
        Case(
            "TCP header shorter than a header",
            (Send("A", f.ip(f.a, f.b) / TCP(flags="S", dataofs=4), DropReason.CT_INVALID_HEADER),),
        ),
        Case("IP version of another", (Send("A", version(syn, f), DropReason.INVALID),)),
    ]
    return [Case(f"{f.name} {c.id}", c.steps, c.flags, c.entries) for c in cases]


def version(packet: object, f: Family) -> bytes:
    """*packet* whose version field says the other family."""
    raw = bytearray(own(packet))
    raw[14] = (raw[14] & 15) | (0x60 if f.version == 4 else 0x40)
    return bytes(raw)


def unroutable(f: Family, *destinations: str) -> list[Case]:
    return [
        Case(f"no way to {d}", (Send("A", own(f.udp(f.a, d)), DropReason.UNROUTABLE),)) for d in destinations
    ]


def ip6(*headers: object) -> object:
    packet = IPv6(src=V6.a, dst=V6.b)
    for header in headers:
        packet = packet / header
    return packet / UDP(sport=5000, dport=53) / Raw(b"u")


def destinations(count: int) -> list[object]:
    return [IPv6ExtHdrDestOpt() for _ in range(count)]


ONLY4 = [
    Case(
        "v4 options",
        (Send("A", IP(src=V4.a, dst=V4.b, options=[IPOption_RR(), IPOption_NOP()]) / UDP(), "B", NEW),),
    ),
    Case(
        "v4 source route",
        (
            Send(
                "A",
                IP(src=V4.a, dst=V4.b, options=[IPOption_LSRR(routers=[V4.r])]) / UDP(),
                DropReason.INVALID,
            ),
        ),
    ),
    Case(
        "v4 strict source route behind others",
        (
            Send(
                "A",
                IP(src=V4.a, dst=V4.b, options=[IPOption_NOP(), IPOption_RR(), IPOption_SSRR(routers=[V4.r])])
                / UDP(),
                DropReason.INVALID,
            ),
        ),
    ),
    Case(
        "v4 header shorter than a header",
        (Send("A", own(IP(src=V4.a, dst=V4.b, ihl=4) / UDP()), DropReason.INVALID),),
    ),
    Case(
        "v4 total length beyond the frame",
        (Send("A", own(IP(src=V4.a, dst=V4.b, len=99) / UDP()), DropReason.INVALID),),
    ),
    Case(
        "v4 total length below the header",
        (Send("A", own(IP(src=V4.a, dst=V4.b, len=19) / UDP()), DropReason.INVALID),),
    ),
    Case("v4 total length 0", (Send("A", own(IP(src=V4.a, dst=V4.b, len=0) / UDP()), DropReason.INVALID),)),
    Case(
        "v4 padding behind the packet", (Send("A", own(V4.udp(V4.a, V4.b) / Raw(b"")) + bytes(18), "B", NEW),)
    ),
    *unroutable(V4, "224.0.0.1", "239.1.2.3", "255.255.255.255", "240.0.0.1", "127.0.0.1", "0.0.0.0"),
    Case("802.3 frame", (Send("A", own(Raw(bytes(60)), type=60), DropReason.UNKNOWN_L2),)),
    Case("LLDP", (Send("A", own(Raw(bytes(60)), type=0x88CC), DropReason.UNKNOWN_L3),)),
    Case("LLDP on the wire", (Send("net", own(Raw(bytes(60)), type=0x88CC), STACK),)),
    Case("ARP on the wire", (Send("net", own(Raw(bytes(60)), type=0x0806), STACK),)),
]
MAPPED = "::ffff:" + B.address4
ONLY6 = [
    Case("v6 hop-by-hop", (Send("A", ip6(IPv6ExtHdrHopByHop()), "B", NEW),)),
    Case("v6 routing, no segments left", (Send("A", ip6(IPv6ExtHdrRouting(segleft=0)), "B", NEW),)),
    Case(
        "v6 routing, segments left",
        (
            Send(
                "A", ip6(IPv6ExtHdrRouting(addresses=[V6.r], segleft=1)), DropReason.INVALID_EXTENSION_HEADER
            ),
        ),
    ),
    Case("v6 six extension headers", (Send("A", ip6(*destinations(6)), "B", NEW),)),
    Case(
        "v6 seven extension headers", (Send("A", ip6(*destinations(7)), DropReason.INVALID_EXTENSION_HEADER),)
    ),
    Case(
        "v6 hop-by-hop not first",
        (Send("A", ip6(IPv6ExtHdrDestOpt(), IPv6ExtHdrHopByHop()), DropReason.INVALID_EXTENSION_HEADER),),
    ),
    Case(
        "v6 extension header beyond the packet",
        (
            Send(
                "A",
                own(IPv6(src=V6.a, dst=V6.b, nh=60) / Raw(b"\x11\xff" + bytes(22))),
                DropReason.INVALID_EXTENSION_HEADER,
            ),
        ),
    ),
    Case("v6 fragment of one piece", (Send("A", ip6(IPv6ExtHdrFragment(id=1)), "B", NEW),)),
    Case(
        "v6 fragment with more headers behind",
        (
            Send(
                "A",
                ip6(IPv6ExtHdrFragment(id=1, m=1), IPv6ExtHdrDestOpt()),
                DropReason.INVALID_EXTENSION_HEADER,
            ),
        ),
    ),
    Case("v6 no next header", (Send("A", own(IPv6(src=V6.a, dst=V6.b, nh=59)), DropReason.UNKNOWN_L4),)),
    Case(
        "v6 source spelled as IPv4",
        (Send("A", own(IPv6(src="::ffff:" + A.address4, dst=V6.b) / UDP()), DropReason.INVALID_SOURCE_IP),),
    ),
    Case(
        "v6 destination spelled as IPv4",
        (Send("A", own(IPv6(src=V6.a, dst=MAPPED) / UDP()), DropReason.UNROUTABLE),),
    ),
    Case(
        "v6 wire, destination spelled as IPv4",
        (Send("net", IPv6(src=V6.r, dst=MAPPED) / UDP(), DropReason.UNROUTABLE),),
    ),
    Case(
        "v6 link-local source",
        (Send("A", own(IPv6(src="fe80::2", dst=V6.b) / UDP()), DropReason.INVALID_SOURCE_IP),),
    ),
    Case(
        "v6 payload length beyond the frame",
        (Send("A", own(IPv6(src=V6.a, dst=V6.b, plen=99) / UDP()), DropReason.INVALID),),
    ),
    Case(
        "v6 echo behind destination options",
        (Send("A", IPv6(src=V6.a, dst=V6.b) / IPv6ExtHdrDestOpt() / ICMPv6EchoRequest(id=3), "B", NEW),),
    ),
    *unroutable(V6, "ff02::1", "ff0e::5", "::1", "::", "fe80::5"),
]
CASES = [case for f in FAMILIES for case in both(f)] + ONLY4 + ONLY6


@pytest.mark.parametrize("wanted", [0x0000, 0x00FF, 0x01FF, 0xFE00, 0xFEFE, 0xFEFF, 0xFF00, 0xFFFE])
def test_header_checksum_carries(shared_world: World, wanted: int) -> None:
    """One hop less adds 0x0100 to the checksum, and what overflows comes back in below (RFC 1624)."""
    shared_world.reset()
    without = int.from_bytes(bytes(IP(src=V4.a, dst=V4.b, id=0) / UDP(sport=1, dport=2))[10:12], "big")
    identification = (without - wanted) % 0xFFFF
    packet = frame("A", IP(src=V4.a, dst=V4.b, id=identification) / UDP(sport=1, dport=2))
    assert int.from_bytes(packet[24:26], "big") == wanted
    assert send(shared_world, "A", packet).packet == routed(packet, B)


def mtu(world: World, size: int) -> None:
    """The uplink takes so much from now on."""
    assert world.apart
    command = ["ip", "link", "set", "uplink", "mtu", str(size)]
    world.apart.call(lambda: subprocess.run(command, check=True, timeout=10))


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
def test_what_does_not_fit_the_uplink_is_left_to_the_stack(shared_world: World, f: Family) -> None:
    """It cuts the packet, or tells the pod.  A pod of this node has no uplink to pass."""
    headers = 28 if f.version == 4 else 48
    sizes = ((1280, True), (1399, True), (1400, True), (1401, False), (3000, False))
    rows = [
        Send(
            "A",
            f.udp(f.a, to, 5000, size, size=size - headers),
            AWAY if fits and to == f.r else elsewhere,
            NEW,
        )
        for size, fits in sizes
        for to, elsewhere in ((f.r, LAST_HOP), (f.b, "B"))
    ]
    mtu(shared_world, 1400)
    try:
        play(shared_world, Case("sizes", tuple(rows)))
    finally:
        mtu(shared_world, 1500)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward(shared_world: World, case: Case) -> None:
    play(shared_world, case)
