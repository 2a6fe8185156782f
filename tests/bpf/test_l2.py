"""Addresses of Services on the node's segment: who asks for one is answered by the kernel, and counted.

The client and the node's uplink are on one segment; the peer is another node of the cluster.
"""

from typing import NamedTuple

import pytest
from msgspec.structs import replace
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

from cirri.layout import L2Flag, L2Key, L2Peer, L2Value, RuntimeFlag, address16
from cirri.testing.datapath import HOST4, HOST6, NODE, TC_OK, TC_REDIRECT, World, mac

CLIENT, PEER, OTHER = "02:00:00:00:03:03", "02:00:00:00:03:12", "02:00:00:00:03:99"
CLIENT4, CLIENT6 = "192.168.3.3", "fd00:192:168:3::3"
VIP4, VIP6 = "192.168.3.200", "fd00:192:168:3::200"
BROADCAST, EVERYBODY = "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"
SOLICITED, SOLICITED_MAC = "ff02::1:ff00:200", "33:33:ff:00:02:00"
MINE = L2Value(mac=mac(NODE.mac))


def arp(op: int = 1, src: str = CLIENT, dst: str = BROADCAST, **fields: object) -> bytes:
    given = {"hwsrc": src, "psrc": CLIENT4, "pdst": VIP4} | fields
    return bytes(Ether(src=src, dst=dst) / ARP(op=op, **given))


def ns(target: str = VIP6, source: str = CLIENT6, option: str = CLIENT, **fields: object) -> bytes:
    message: Packet = ICMPv6ND_NS(tgt=target)
    message = message / ICMPv6NDOptSrcLLAddr(lladdr=option) if option else message
    ip = {"src": source, "dst": SOLICITED, "hlim": 255} | fields
    return bytes(Ether(src=CLIENT, dst=SOLICITED_MAC) / IPv6(**ip) / message)


def na(src: str, target: str = VIP6, hlim: int = 255) -> bytes:
    ether, ip = Ether(src=src, dst=EVERYBODY), IPv6(src=target, dst="ff02::1", hlim=hlim)
    return bytes(ether / ip / ICMPv6ND_NA(tgt=target, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=src))


def arp_answer(target: str = CLIENT4) -> bytes:
    ether = Ether(src=NODE.mac, dst=CLIENT)
    return bytes(ether / ARP(op=2, hwsrc=NODE.mac, psrc=VIP4, hwdst=CLIENT, pdst=target))


def nd_answer(to: str = CLIENT6, to_mac: str = CLIENT, solicited: int = 1) -> bytes:
    ether, ip = Ether(src=NODE.mac, dst=to_mac), IPv6(src=VIP6, dst=to, hlim=255)
    message = ICMPv6ND_NA(tgt=VIP6, R=0, S=solicited, O=1) / ICMPv6NDOptDstLLAddr(lladdr=NODE.mac)
    return bytes(ether / ip / message)


class Row(NamedTuple):
    id: str
    packet: bytes
    answer: bytes | None = None
    """None: it is the stack's, untouched."""
    rival: str = ""
    """Who is noted to have announced the address."""
    yields: bool = False
    before: int = 0
    """Flags of the entry when the packet comes."""


TABLE = [
    Row("ARP, broadcast", arp(), arp_answer()),
    Row("ARP, padded", arp() + bytes(18), arp_answer() + bytes(18)),
    Row("ARP, to the node alone", arp(dst=NODE.mac), arp_answer()),
    Row("ARP, who wants the address for itself", arp(psrc="0.0.0.0"), arp_answer("0.0.0.0")),
    Row("ARP for the node", arp(pdst=HOST4)),
    Row("ARP for an address that nobody announces", arp(pdst="192.168.3.201")),
    Row("ARP answer", arp(op=2)),
    Row("ARP of other hardware", arp(hwtype=6)),
    Row("ARP cut short", arp()[:41]),
    Row("ARP while silent", arp(), before=L2Flag.YIELDED, yields=True),
    Row("another node announces", arp(src=PEER, psrc=VIP4), rival=PEER, yields=True),
    Row("another node announces by an answer", arp(op=2, src=PEER, psrc=VIP4), rival=PEER, yields=True),
    Row("a stranger announces", arp(src=OTHER, psrc=VIP4), rival=OTHER),
    Row("the node hears itself", arp(src=NODE.mac, psrc=VIP4)),
    Row("NS, multicast", ns(), nd_answer()),
    Row("NS without option", ns(option=""), nd_answer()),
    Row("NS to the address itself", ns(dst=VIP6), nd_answer()),
    Row(
        "NS, who wants the address for itself", ns(source="::", option=""), nd_answer("ff02::1", EVERYBODY, 0)
    ),
    Row("NS that was forwarded", ns(hlim=254)),
    Row("NS for the node", ns(HOST6)),
    Row("NS while silent", ns(), before=L2Flag.YIELDED, yields=True),
    Row("NA of another node", na(PEER), rival=PEER, yields=True),
    Row("NA of a stranger", na(OTHER), rival=OTHER),
    Row("NA of the node", na(NODE.mac)),
    Row("NA that was forwarded", na(PEER, hlim=64)),
    Row("NA about another address", na(PEER, HOST6)),
]


@pytest.fixture
def segment(shared_world: World) -> World:
    """The node answers for one address of each family."""
    shared_world.reset()
    for address in (VIP4, VIP6):
        shared_world.l2.put(key(shared_world, address), MINE)
    shared_world.l2_peers.put(L2Peer(mac=mac(PEER)), 1)
    return shared_world


def key(world: World, address: str, device: int = 0) -> L2Key:
    return L2Key(address=address16(address), ifindex=device or world.uplink)


@pytest.mark.parametrize("firewall", [False, True], ids=["", "host firewall"])
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.id)
def test_what_is_answered(segment: World, row: Row, firewall: bool) -> None:
    if firewall:
        segment.runtime.put(0, replace(segment.runtime[0], flags=RuntimeFlag.HOST_FIREWALL))
    address = VIP6 if row.packet[12:14] == b"\x86\xdd" else VIP4
    segment.l2.put(key(segment, address), replace(MINE, flags=row.before))
    result = segment.run("tc/from_network", row.packet, segment.uplink, segment.uplink)
    entry = segment.l2[key(segment, address)]
    if row.answer is None:
        assert (result.action, result.packet) == (TC_OK, row.packet)
    else:
        assert (result.action, result.packet) == (TC_REDIRECT, row.answer)
    rival = mac(row.rival) if row.rival else bytes(6)
    flags = L2Flag.YIELDED if row.yields else 0
    expected = L2Value(
        answers=int(row.answer is not None),
        rivals=int(bool(row.rival)),
        mac=MINE.mac,
        rival=rival,
        flags=flags,
    )
    assert entry == expected
    assert not result.events
    assert not result.metrics


def test_only_on_the_device_it_is_for(segment: World) -> None:
    for address, packet in ((VIP4, arp()), (VIP6, ns())):
        segment.l2.delete(key(segment, address))
        segment.l2.put(key(segment, address, segment.uplink + 1), MINE)
        assert segment.run("tc/from_network", packet, segment.uplink, segment.uplink).action == TC_OK


def test_tags_are_not_looked_behind(segment: World) -> None:
    tagged = bytes(Ether(src=CLIENT, dst=BROADCAST) / Dot1Q(vlan=5) / ARP(psrc=CLIENT4, pdst=VIP4))
    assert segment.run("tc/from_network", tagged, segment.uplink, segment.uplink).packet == tagged
    assert segment.l2[key(segment, VIP4)] == MINE


def test_every_answer_is_counted(segment: World) -> None:
    for _ in range(3):
        segment.run("tc/from_network", arp(), segment.uplink, segment.uplink)
    assert segment.l2[key(segment, VIP4)].answers == 3


def test_frames_for_other_machines_are_theirs(segment: World) -> None:
    """A switch floods what it does not know the way of: one node serves it, the others leave it alone."""
    segment.runtime.put(0, replace(segment.runtime[0], flags=RuntimeFlag.OWN_FRAMES))
    for to, action in ((PEER, TC_OK), (NODE.node_mac, TC_REDIRECT), (BROADCAST, TC_REDIRECT)):
        assert segment.run("tc/from_network", arp(dst=to), segment.uplink, segment.uplink).action == action, (
            to
        )
