"""Packets that were made to hurt: cut at every length, and mutated at random.

Linux runs no test on less than an IP header; ``test_live.py`` sends shorter frames through a device.
"""

import random
import time

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP
from scapy.packet import Packet, Raw

from cirri.layout import DropReason, EndpointFlag, EventType
from cirri.maps import KernelRefused
from cirri.testing.datapath import TC_OK, TC_REDIRECT, TC_SHOT, A, World
from cirri.testing.packets import V4, V6, frame, send

SHORT = {
    DropReason.INVALID,
    DropReason.CT_INVALID_HEADER,
    DropReason.INVALID_EXTENSION_HEADER,
    DropReason.UNKNOWN_L4,
    DropReason.UNKNOWN_L2,
}
V4_PACKETS = {
    "v4 TCP": IP(src=V4.a, dst=V4.b) / TCP(flags="S"),
    "v4 TCP with options": IP(src=V4.a, dst=V4.b, options=[IPOption_RR()])
    / TCP(flags="S", options=[("MSS", 9)]),
    "v4 UDP": IP(src=V4.a, dst=V4.b) / UDP(),
    "v4 echo": IP(src=V4.a, dst=V4.b) / ICMP(id=3),
    "v4 error": IP(src=V4.a, dst=V4.b) / ICMP(type=3) / IP(src=V4.b, dst=V4.a) / UDP(),
}
V6_PACKETS = {
    "v6 TCP": IPv6(src=V6.a, dst=V6.b) / TCP(flags="S"),
    "v6 UDP": IPv6(src=V6.a, dst=V6.b) / UDP(),
    "v6 echo": IPv6(src=V6.a, dst=V6.b) / ICMPv6EchoRequest(id=3),
    "v6 extensions": IPv6(src=V6.a, dst=V6.b) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / TCP(flags="S"),
    "v6 fragment": IPv6(src=V6.a, dst=V6.b) / IPv6ExtHdrFragment(id=5, m=1) / UDP() / Raw(bytes(16)),
}
HEADERS = {"TCP": 20, "UDP": 8, "ICMP": 8}


@pytest.mark.parametrize("name", [*V4_PACKETS, *V6_PACKETS])
def test_frame_cut_at_every_length(shared_world: World, name: str) -> None:
    """The headers promise more than there is: never anything but dropped, with a reason that fits."""
    shared_world.reset()
    whole = frame("A", (V4_PACKETS | V6_PACKETS)[name])
    for length in range(34 if name in V4_PACKETS else 54, len(whole)):
        result = send(shared_world, "A", whole[:length])
        assert result.action == TC_SHOT, length
        (event,) = result.events
        assert event.type == EventType.DROP, length
        assert event.reason in SHORT, (length, event.reason)
        assert result.metrics == {(event.reason, 2): (1, length)}


@pytest.mark.parametrize("name", [*V4_PACKETS, *V6_PACKETS])
def test_packet_cut_at_every_length(shared_world: World, name: str) -> None:
    """The IP header is honest about a packet that ends too early: forwarded only with a whole L4 header."""
    packet = (V4_PACKETS | V6_PACKETS)[name]
    whole = frame("A", packet)
    v4 = name in V4_PACKETS
    headers = 14 + (bytes(packet)[0] & 15) * 4 if v4 else 54
    l4_at = {"v6 extensions": 70, "v6 fragment": 62}.get(name, headers)
    least = l4_at + (20 if "TCP" in name or "extensions" in name else 8)
    if "options" in name:
        least += 4  # TCP's own options are part of its header
    for length in range(headers, len(whole)):
        shared_world.reset()
        cut = bytearray(whole[:length])
        if v4:
            cut[16:18] = (length - 14).to_bytes(2, "big")
        else:
            cut[18:20] = (length - 54).to_bytes(2, "big")
        result = send(shared_world, "A", bytes(cut))
        assert result.action == (TC_REDIRECT if length >= least else TC_SHOT), length


SEEDS: list[Packet] = [
    *V4_PACKETS.values(),
    *V6_PACKETS.values(),
    ARP(op=1, hwsrc=A.mac, psrc=A.address4, pdst="169.254.1.1"),
    IPv6(src=V6.a, dst="fe80::1", hlim=255) / ICMPv6ND_NS(tgt="fe80::1"),
    V4.fragments(V4.a, V4.b, UDP() / Raw(bytes(40)))[1],
]


def mutate(packet: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, some removed, some added; never too short for the kernel to take."""
    raw = bytearray(packet)
    for _ in range(rng.randint(1, 6)):
        match rng.randrange(5):
            case 0:
                raw[rng.randrange(12, len(raw))] = rng.randrange(256)
            case 1:
                raw[rng.randrange(12, len(raw))] ^= 1 << rng.randrange(8)
            case 2:
                raw[rng.randrange(14, len(raw))] = rng.choice([0, 1, 4, 6, 17, 44, 58, 60, 127, 255])
            case 3 if len(raw) > 20:
                del raw[rng.randrange(15, len(raw)) :]
            case _:
                raw += rng.randbytes(rng.randrange(64))
    return bytes(raw)


def test_mutated_packets(shared_world: World) -> None:
    """For a few seconds at most: what passes has a true source, and nothing passes without being allowed."""
    world = shared_world
    world.reset()
    world.enforce({"A": EndpointFlag.ENFORCE_EGRESS, "B": EndpointFlag.ENFORCE_INGRESS})
    rng = random.Random(20240607)
    own = {bytes(V4.ip(V4.a, V4.a))[12:16], bytes(V6.ip(V6.a, V6.a))[8:24]}
    end, ran = time.monotonic() + 5, 0
    while ran < 2500 and time.monotonic() < end:
        packet = mutate(frame("A", rng.choice(SEEDS)), rng)
        at = rng.choice(("A", "A", "net", ">A"))
        try:
            result = send(world, at, packet)
        except KernelRefused:  # no packet at all for the kernel
            continue
        ran += 1
        assert result.action in (TC_OK, TC_SHOT, TC_REDIRECT)
        assert sum(packets for packets, _ in result.metrics.values()) <= 1
        if at != "A" or result.action == TC_SHOT:
            continue
        kind = packet[12:14]
        if kind == b"\x08\x06" or (kind == b"\x86\xdd" and result.packet[54] == 136):
            continue  # the gateway's answer, or the pod's own: see test_neighbours
        # Egress is denied, so only what is exempt remains: to itself, and "fragmentation needed".
        source = packet[26:30] if kind == b"\x08\x00" else packet[22:38]
        destination = packet[30:34] if kind == b"\x08\x00" else packet[38:54]
        assert source in own, packet.hex()
        needed = kind == b"\x08\x00" and packet[23] == 1
        assert destination in own or needed, packet.hex()
    assert ran > 100


def test_spoofed_sources_never_pass(shared_world: World) -> None:
    """Any source but A's own, with nothing denied, in any seed: dropped."""
    world = shared_world
    world.reset()
    rng = random.Random(7)
    for _ in range(1500):
        packet = bytearray(frame("A", rng.choice(list((V4_PACKETS | V6_PACKETS).values()))))
        v4 = packet[12:14] == b"\x08\x00"
        where, width = (26, 4) if v4 else (22, 16)
        at = where + rng.randrange(width)
        packet[at] ^= 1 << rng.randrange(8)
        for _ in range(rng.randrange(4)):
            packet[rng.randrange(14, len(packet))] = rng.randrange(256)
        own = bytes(V4.ip(V4.a, V4.a))[12:16] if v4 else bytes(V6.ip(V6.a, V6.a))[8:24]
        if bytes(packet[where : where + width]) == own:
            continue
        assert send(world, "A", bytes(packet)).action == TC_SHOT, packet.hex()
