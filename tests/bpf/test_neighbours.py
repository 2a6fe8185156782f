"""ARP and neighbour discovery: pods find their gateway, and nothing about anybody else."""

import pytest
from scapy.layers.inet6 import (
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from cirri.layout import DropReason
from cirri.testing.datapath import A, B, World
from cirri.testing.packets import SILENT, STACK, V6, Case, Send, play

BROADCAST, GATEWAY4, GATEWAY6, LOCAL = "ff:ff:ff:ff:ff:ff", "169.254.1.1", "fe80::1", "fe80::aa"
SOLICITED = "ff02::1:ff00:1"


def arp(op: int = 1, ether: str = A.mac, **fields: object) -> bytes:
    """ARP from A, right unless *fields* say otherwise."""
    given = {"hwsrc": A.mac, "psrc": A.address4, "pdst": GATEWAY4} | fields
    return bytes(Ether(src=ether, dst=BROADCAST) / ARP(op=op, **given))


ARP_ANSWER = bytes(
    Ether(src=A.node_mac, dst=A.mac)
    / ARP(op=2, hwsrc=A.node_mac, psrc=GATEWAY4, hwdst=A.mac, pdst=A.address4)
)


def nd(
    message: Packet,
    source: str = V6.a,
    destination: str = SOLICITED,
    hlim: int = 255,
    dst: str = "33:33:ff:00:00:01",
    src: str = A.mac,
) -> bytes:
    """Neighbour discovery from A."""
    return bytes(Ether(src=src, dst=dst) / IPv6(src=source, dst=destination, hlim=hlim) / message)


def ns(target: str = GATEWAY6, option: str | None = A.mac) -> Packet:
    solicitation = ICMPv6ND_NS(tgt=target)
    return solicitation / ICMPv6NDOptSrcLLAddr(lladdr=option) if option else solicitation


def na(target: str = V6.a, option: str | None = A.mac) -> Packet:
    advertisement = ICMPv6ND_NA(tgt=target, R=0, S=1, O=1)
    return advertisement / ICMPv6NDOptDstLLAddr(lladdr=option) if option else advertisement


def answer(to: str, node_mac: str = A.node_mac) -> bytes:
    """The gateway's advertisement; scapy computes the checksum."""
    return bytes(
        Ether(src=node_mac, dst=A.mac)
        / IPv6(src=GATEWAY6, dst=to, hlim=255)
        / ICMPv6ND_NA(tgt=GATEWAY6, R=0, S=1, O=1)
        / ICMPv6NDOptDstLLAddr(lladdr=node_mac)
    )


IP, MAC = DropReason.INVALID_SOURCE_IP, DropReason.INVALID_SOURCE_MAC
BAD, UNROUTABLE, FORBIDDEN = DropReason.INVALID, DropReason.UNROUTABLE, DropReason.FORBIDDEN_ICMP6
report = (
    IPv6(src=LOCAL, dst="ff02::16", hlim=1) / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / ICMPv6MLReport2()
)
TABLE: list[tuple[str, str, bytes, object]] = [
    ("ARP for the gateway", "A", arp(), ARP_ANSWER),
    ("ARP for the gateway, padded", "A", arp() + bytes(18), ARP_ANSWER + bytes(18)),
    ("ARP for another pod", "A", arp(pdst=B.address4), UNROUTABLE),
    ("ARP announcing itself", "A", arp(pdst=A.address4), UNROUTABLE),
    ("ARP in another's name", "A", arp(psrc=B.address4), IP),
    ("ARP in the gateway's name", "A", arp(psrc=GATEWAY4), IP),
    ("ARP in nobody's name", "A", arp(psrc="0.0.0.0"), IP),
    ("ARP with another's MAC", "A", arp(hwsrc=B.mac), MAC),
    ("ARP in a frame with another's MAC", "A", arp(ether=B.mac), MAC),
    ("ARP answer to the node", "A", arp(op=2, pdst="192.168.3.10"), STACK),
    ("ARP answer in another's name", "A", arp(op=2, psrc=B.address4), IP),
    ("RARP", "A", arp(op=3), UNROUTABLE),
    ("ARP of other hardware", "A", arp(hwtype=6), BAD),
    ("ARP of other protocols", "A", arp(ptype=0x86DD), BAD),
    ("ARP cut short", "A", arp()[:41], BAD),
    ("ARP from the node", ">A", arp(), STACK),
    ("NS for the gateway", "A", nd(ns()), answer(V6.a)),
    ("NS without option", "A", nd(ns(option=None)), answer(V6.a)),
    ("NS with two options", "A", nd(ns() / ICMPv6NDOptSrcLLAddr(lladdr=A.mac)), answer(V6.a)),
    ("NS to the gateway itself", "A", nd(ns(), destination=GATEWAY6, dst=A.node_mac), answer(V6.a)),
    ("NS, probe from link-local", "A", nd(ns(), LOCAL, GATEWAY6, dst=A.node_mac), answer(LOCAL)),
    ("NS from link-local to all", "A", nd(ns(), LOCAL), SILENT),
    ("NS, duplicate address detection", "A", nd(ns(V6.a, None), "::"), SILENT),
    ("NS for another pod", "A", nd(ns(V6.b)), UNROUTABLE),
    ("NS in another's name", "A", nd(ns(), V6.b), IP),
    ("NS in the world's name", "A", nd(ns(), V6.world), IP),
    ("NS in a frame with another's MAC", "A", nd(ns(), src=B.mac), MAC),
    ("NS without option in a frame with another's MAC", "A", nd(ns(option=None), src=B.mac), MAC),
    ("NS with another's MAC inside", "A", nd(ns(option=B.mac)), MAC),
    (
        "NS with another's MAC inside, link-local",
        "A",
        nd(ns(option=B.mac), LOCAL, GATEWAY6, dst=A.node_mac),
        MAC,
    ),
    ("NS that was forwarded", "A", nd(ns(), hlim=254), BAD),
    ("NS with a code", "A", nd(ICMPv6ND_NS(tgt=GATEWAY6, code=1)), BAD),
    ("NS cut short", "A", nd(IPv6ExtHdrDestOpt(nh=58) / Raw(bytes(ns())[:20])), BAD),
    ("NS behind an extension header", "A", nd(IPv6ExtHdrDestOpt() / ns()), BAD),
    ("NA about itself, to the node", "A", nd(na(), destination=V6.host, dst=A.node_mac), STACK),
    ("NA about itself, from link-local", "A", nd(na(), LOCAL, V6.host, dst=A.node_mac), STACK),
    ("NA about another pod", "A", nd(na(V6.b), destination=V6.host, dst=A.node_mac), IP),
    ("NA about the gateway", "A", nd(na(GATEWAY6), destination=V6.host, dst=A.node_mac), IP),
    ("NA about the host", "A", nd(na(V6.host), destination=V6.host, dst=A.node_mac), IP),
    ("NA with another's MAC inside", "A", nd(na(option=B.mac), destination=V6.host, dst=A.node_mac), MAC),
    (
        "NA with another's MAC outside",
        "A",
        nd(na(option=None), LOCAL, V6.host, dst=A.node_mac, src=B.mac),
        MAC,
    ),
    ("NA from nobody", "A", nd(na(), "::", V6.host), IP),
    ("router solicitation", "A", nd(ICMPv6ND_RS(), LOCAL, "ff02::2"), SILENT),
    ("router advertisement", "A", nd(ICMPv6ND_RA(), LOCAL, "ff02::1"), FORBIDDEN),
    ("redirect", "A", nd(ICMPv6ND_Redirect(tgt=V6.a, dst=V6.world), V6.a, V6.host), FORBIDDEN),
    ("listener report", "A", bytes(Ether(src=A.mac, dst="33:33:00:00:00:16") / report), SILENT),
    ("NS from the node", ">A", nd(ns(V6.a), V6.host, V6.a), STACK),
    ("NS that the node forwards", ">A", nd(ns(V6.a), V6.world, SOLICITED, hlim=254), SILENT),
]


def case(row: tuple[str, str, bytes, object]) -> Case:
    name, at, packet, to = row
    return Case(name, (Send(at, packet, to),))  # type: ignore[arg-type]


CASES = [case(row) for row in TABLE] + [
    Case("multicast from the node", (Send(">A", V6.udp("fe80::9", "ff02::fb", 5353, 5353), SILENT),)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_neighbours(shared_world: World, case: Case) -> None:
    play(shared_world, case)
