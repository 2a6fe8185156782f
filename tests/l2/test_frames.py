"""Announcements, as scapy and the RFCs have them."""

from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from cirri.l2.frames import advertised, announcements, arp_sender, question

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


def test_questions_go_to_one_machine() -> None:
    to = "02:00:00:00:03:12"
    arp = Ether(src=MAC, dst=to) / ARP(op=1, hwsrc=MAC, psrc="0.0.0.0", hwdst=ZERO, pdst="10.0.0.9")
    ip = IPv6(src="::", dst="ff02::1:ff00:9", hlim=255)
    nd = Ether(src=MAC, dst=to) / ip / ICMPv6ND_NS(tgt="fd00::9")
    for address, frame in (("10.0.0.9", arp), ("fd00::9", nd)):
        assert question(address, RAW, bytes.fromhex(to.replace(":", ""))) == bytes(frame)


def test_answers_are_read() -> None:
    """Of ARP from Ethernet on, of neighbour discovery from ICMPv6 on; what is no answer is none."""
    request, reply = announcements("10.0.0.9", RAW)
    assert (arp_sender(request), arp_sender(reply)) == (None, ("10.0.0.9", RAW))
    assert arp_sender(reply + bytes(18)) == ("10.0.0.9", RAW)
    assert arp_sender(reply[:41]) is None
    (frame,) = announcements("fd00::9", RAW)
    assert advertised(frame[54:]) == ("fd00::9", RAW)
    for other in (frame[54:-1], b"\x87" + frame[55:], frame[54:78] + b"\1\1" + RAW):
        assert advertised(other) is None
