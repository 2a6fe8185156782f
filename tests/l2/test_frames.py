"""Announcements, as scapy and the RFCs have them."""

from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from cirri.l2.frames import announcements

MAC, ZERO = "02:00:00:00:03:11", "00:00:00:00:00:00"
RAW = bytes.fromhex(MAC.replace(":", ""))


def test_arp() -> None:
    ether, fields = (
        Ether(src=MAC, dst="ff:ff:ff:ff:ff:ff"),
        {"hwsrc": MAC, "psrc": "10.0.0.9", "pdst": "10.0.0.9"},
    )
    request, reply = ARP(op=1, hwdst=ZERO, **fields), ARP(op=2, hwdst=MAC, **fields)
    assert announcements("10.0.0.9", RAW) == (bytes(ether / request), bytes(ether / reply))


def test_neighbour_advertisement() -> None:
    message = ICMPv6ND_NA(tgt="fd00::9", R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=MAC)
    frame = Ether(src=MAC, dst="33:33:00:00:00:01") / IPv6(src="fd00::9", dst="ff02::1", hlim=255) / message
    assert announcements("fd00::9", RAW) == (bytes(frame),)
