"""XDP: what turns round at the driver, and that everything else goes the way of all packets, untouched."""

import errno
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace
from scapy.layers.inet import IP, UDP, IPOption_NOP
from scapy.layers.inet import TCP as TCP_LAYER
from scapy.layers.inet6 import IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from cirri.layout import (
    DIRECT,
    LB_FLOWS,
    CtFlag,
    LbFlag,
    LbFlow,
    LbFlowKey,
    NatDirection,
    NatKey,
    NatValue,
    PolicyDirection,
    RuntimeConfig,
    address16,
)
from cirri.maps import KernelRefused, XdpBuff, attach_xdp, detach, test_run, xdp_program
from cirri.testing.datapath import EPOCH, NEXT_HOP4, NEXT_HOP6, TC_REDIRECT, World
from cirri.testing.fronts import BIND, NUMBER, serve
from cirri.testing.packets import FAMILIES, NEIGHBOUR_MAC, UPLINK_MAC, Family, send

XDP_PASS, XDP_TX = 2, 3
TCP, UDP_ = 6, 17
PORT, NAT_PORT = 30080, 50123
JUST_NOW_S = -60.0
"""The age of what the kernel takes for fresh however long this process waits for a CPU."""
PATIENCE_S = 30.0
LIFETIME_S = {TCP: 21600, UDP_: 60}
ESTABLISHED = CtFlag.SEEN_REPLY | CtFlag.ESTABLISHED


@pytest.fixture(scope="module")
def wire(shared_world: World) -> Iterator[World]:
    """The world with the program on its uplink, behind which the router has a known hardware address."""
    pin = shared_world.bpffs / "xdp_uplink"
    uplink = shared_world.ifindex["uplink"]

    def begin() -> None:
        attach_xdp(shared_world.programs["xdp.frags"], uplink, pin)
        for address in (NEXT_HOP4, NEXT_HOP6):
            words = f"ip neigh replace {address} lladdr {NEIGHBOUR_MAC} dev uplink nud permanent"
            subprocess.run(words.split(), check=True, timeout=10)

    assert shared_world.apart
    shared_world.reset()
    shared_world.apart.call(begin)
    try:
        yield shared_world
    finally:
        detach(pin)


def known(world: World, f: Family, age_s: float = JUST_NOW_S, **changes: Any) -> None:
    """Connections of a client to the node port and of a backend's answers, as tc left them *age_s* ago."""
    for each in (world.lb[LB_FLOWS.name], world.nat):
        each.clear()
    serve(f.host, PORT, f.r, flags=changes.pop("service_flags", 0)).what(world)
    nat4, nat6 = (address16(one.host) for one in FAMILIES)
    config = RuntimeConfig(epoch=EPOCH, uplink_ifindex=world.uplink, lb_epoch=3, nat4=nat4, nat6=nat6)
    world.runtime.put(0, replace(config, **changes.pop("runtime", {})))
    left: dict[str, Any] = {
        "nat_port": NAT_PORT,
        "address": address16(f.r),
        "epoch": config.lb_epoch,
    } | changes
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - int(age_s * 1e9)
    for protocol, lifetime in LIFETIME_S.items():
        expires = max(0, now + lifetime * 10**9)
        key = LbFlowKey(
            client=address16(f.world), address=address16(f.host), client_port=4000, port=PORT,
            protocol=protocol,
        )  # fmt: skip
        flow = {name: value for name, value in left.items() if name in LbFlow.__struct_fields__}
        world.lb[LB_FLOWS.name].put(key, LbFlow(expires=expires, port=BIND, **flow))
        back = NatKey(
            local=address16(f.host), remote=address16(f.r), local_port=NAT_PORT, remote_port=BIND,
            protocol=protocol, direction=NatDirection.BACK,
        )  # fmt: skip
        value = NatValue(
            address=address16(f.world), port=4000, expires=expires, flags=ESTABLISHED,
            frontend=left.get("frontend", NUMBER),
        )  # fmt: skip
        world.nat.put(back, value)
    world.counted_since()


def freshen(world: World) -> None:
    """What tc left is as fresh as can be, for all the time this process waited for a CPU."""
    for each in (world.lb[LB_FLOWS.name], world.nat):
        for key, value in each.to_dict().items():
            if value.expires:
                each.put(key, replace(value, expires=value.expires - int(JUST_NOW_S * 1e9)))


def run(world: World, frame: bytes) -> tuple[int, bytes]:
    """The action, and the packet."""
    assert world.apart
    context = XdpBuff(world.ifindex["uplink"])
    result = world.apart.call(lambda: test_run(world.programs["xdp.frags"], frame, context=context))
    return result.action, result.packet


def came(packet: Packet) -> bytes:
    return bytes(Ether(src=NEIGHBOUR_MAC, dst=UPLINK_MAC) / packet)


def left(packet: Packet) -> bytes:
    return bytes(Ether(src=UPLINK_MAC, dst=NEIGHBOUR_MAC) / packet)


@dataclass(frozen=True)
class Row:
    """What the maps know, a packet, and what it becomes; None: it goes the other way."""

    id: str
    family: Family
    packet: Packet | bytes
    becomes: Packet | None = None
    knows: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return f"{self.family.name} {self.id}"


def turned(f: Family) -> Iterator[Row]:
    """Both directions, both protocols; checksums are right because the whole packets are compared."""
    data = Raw(b"some data!!")
    for flags in ("A", "PA"):
        yield Row(
            f"request {flags}", f,
            f.tcp(f.world, f.host, flags, 4000, PORT) / data,
            f.tcp(f.host, f.r, flags, NAT_PORT, BIND, ttl=63) / data,
        )  # fmt: skip
    yield Row(
        "answer", f,
        f.tcp(f.r, f.host, "A", BIND, NAT_PORT) / data,
        f.tcp(f.host, f.world, "A", PORT, 4000, ttl=63) / data,
    )  # fmt: skip
    yield Row(
        "datagram", f,
        f.udp(f.world, f.host, 4000, PORT, size=99), f.udp(f.host, f.r, NAT_PORT, BIND, size=99, ttl=63),
    )  # fmt: skip
    yield Row(
        "answering datagram", f,
        f.udp(f.r, f.host, BIND, NAT_PORT), f.udp(f.host, f.world, PORT, 4000, ttl=63),
    )  # fmt: skip
    yield Row(
        "answered from there directly", f,
        f.tcp(f.world, f.host, "A", 4000, PORT), f.tcp(f.world, f.r, "A", 4000, BIND, ttl=63),
        (("nat_port", DIRECT),),
    )  # fmt: skip


def unsummed(f: Family, *args: Any, **more: Any) -> Packet:
    packet = f.udp(*args, **more)
    packet[UDP].chksum = 0
    return packet


def passed(f: Family) -> Iterator[Row]:
    request, answer = f.tcp(f.world, f.host, "A", 4000, PORT), f.tcp(f.r, f.host, "A", BIND, NAT_PORT)
    datagram = f.udp(f.world, f.host, 4000, PORT)
    for flags in ("S", "SA", "FA", "R", "RA"):
        yield Row(f"request {flags}", f, f.tcp(f.world, f.host, flags, 4000, PORT))
        yield Row(f"answer {flags}", f, f.tcp(f.r, f.host, flags, BIND, NAT_PORT))
    for name, packet in (("request", request), ("answer", answer), ("datagram", datagram)):
        yield Row(f"{name}, nothing of it for two seconds", f, packet, knows=(("age_s", 2.0),))
        yield Row(f"{name}, over", f, packet, knows=(("age_s", 30000.0),))
        yield Row(f"{name}, tunnel", f, packet, knows=(("runtime", {"tunnel_ifindex": 9}),))
    yield Row("a backend left", f, request, knows=(("epoch", 77),))
    yield Row("a pod of this node", f, request, knows=(("nat_port", 0), ("address", address16(f.a))))
    yield Row("a datagram that tells for whom", f, datagram, knows=(("nat_port", DIRECT),))
    yield Row("not sent on yet", f, request, knows=(("nat_port", 0),))
    yield Row("masqueraded", f, answer, knows=(("frontend", 0),))
    yield Row("a frontend that is gone", f, answer, knows=(("frontend", 5),))
    yield Row("unknown client", f, f.tcp(f.world, f.host, "A", 4001, PORT))
    yield Row("unknown port of ours", f, f.tcp(f.r, f.host, "A", BIND, NAT_PORT + 1))
    yield Row("last hop", f, f.tcp(f.world, f.host, "A", 4000, PORT, ttl=1))
    yield Row("ICMP", f, f.ping(f.world, f.host))
    yield Row("broadcast", f, bytes(Ether(src=NEIGHBOUR_MAC, dst="ff:ff:ff:ff:ff:ff") / request))
    yield Row("tagged", f, bytes(Ether(src=NEIGHBOUR_MAC, dst=UPLINK_MAC) / Dot1Q(vlan=5) / request))
    for part in f.fragments(f.world, f.host, UDP(sport=4000, dport=PORT) / Raw(b"d" * 60)):
        yield Row("fragment", f, part)
    longer = f.udp(f.world, f.host, 4000, PORT)
    setattr(longer, "len" if f.version == 4 else "plen", 1200)
    yield Row("longer than it is", f, longer)
    if f.version == 4:
        options = IP(src=f.world, dst=f.host, options=[IPOption_NOP()] * 4)
        yield Row("options", f, options / request.payload)
    else:
        yield Row("extension header", f, f.ip(f.world, f.host) / IPv6ExtHdrDestOpt() / request.payload)


ROWS = [row for f in FAMILIES for make in (turned, passed) for row in make(f)]
ROWS.append(
    Row(
        "datagram without checksum",
        FAMILIES[0],
        unsummed(FAMILIES[0], FAMILIES[0].world, FAMILIES[0].host, 4000, PORT),
        unsummed(FAMILIES[0], FAMILIES[0].host, FAMILIES[0].r, NAT_PORT, BIND, ttl=63),
    )
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_packets(wire: World, row: Row) -> None:
    known(wire, row.family, **dict(row.knows))
    frame = row.packet if isinstance(row.packet, bytes) else came(row.packet)
    wanted = (XDP_PASS, frame) if row.becomes is None else (XDP_TX, left(row.becomes))
    assert run(wire, frame) == wanted
    counted = {(0, int(PolicyDirection.INGRESS)): (1, len(frame))} if row.becomes is not None else {}
    assert wire.counted_since() == counted


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
def test_short_frames_pass(wire: World, f: Family) -> None:
    """Whatever is missing, nothing is read beyond the end or changed."""
    known(wire, f)
    whole = came(f.tcp(f.world, f.host, "A", 4000, PORT))
    assert run(wire, whole)[0] == XDP_TX
    for length in range(14, len(whole)):
        assert run(wire, whole[:length]) == (XDP_PASS, whole[:length])


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
def test_checksums_of_any_packet(wire: World, f: Family) -> None:
    """Also where the sum comes to all ones or zeros: one byte pair of data runs through every value."""
    known(wire, f)
    for low in range(0, 0x10000, 257 * 3):
        data = Raw(low.to_bytes(2, "big"))
        sent, wanted = (
            f.ip(*ends, ttl=ttl) / UDP(sport=ports[0], dport=ports[1]) / data
            for ends, ports, ttl in (
                ((f.world, f.host), (4000, PORT), 64),
                ((f.host, f.r), (NAT_PORT, BIND), 63),
            )
        )
        assert run(wire, came(sent)) == (XDP_TX, left(wanted))


def test_without_a_known_neighbour_it_passes(wire: World) -> None:
    """The other way asks for it; what was found is remembered for a second, by the CPU that found it."""
    f = FAMILIES[0]
    frame = came(f.tcp(f.world, f.host, "A", 4000, PORT))

    def neighbour(verb: str) -> None:
        words = f"ip neigh {verb} {NEXT_HOP4} dev uplink lladdr {NEIGHBOUR_MAC} nud permanent"
        subprocess.run(words.split(), check=True, timeout=10)

    known(wire, f)
    assert wire.apart
    wire.apart.call(lambda: neighbour("del"))
    deadline = time.monotonic() + PATIENCE_S
    while run(wire, frame)[0] == XDP_TX:
        assert time.monotonic() < deadline
        known(wire, f)
        time.sleep(0.02)
    wire.apart.call(lambda: neighbour("add"))
    assert run(wire, frame)[0] == XDP_TX


@pytest.mark.parametrize("direct", [False, True], ids=["in the node's name", "answered directly"])
@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
def test_it_does_what_the_other_way_does(wire: World, f: Family, direct: bool) -> None:
    """Connections that tc made: from the next packet on both give the same bytes; one that ends is tc's."""
    wire.reset()
    own = {"nat4": address16(FAMILIES[0].host), "nat6": address16(FAMILIES[1].host)}
    wire.runtime.put(0, replace(wire.runtime[0], **own))
    serve(f.host, PORT, f.r, flags=LbFlag.DSR if direct else LbFlag(0)).what(wire)
    data = Raw(b"data that is sent")

    def both(packet: Packet) -> bytes:
        freshen(wire)
        action, turned = run(wire, came(packet))
        other = send(wire, "net", packet)
        assert (action, other.action) == (XDP_TX, TC_REDIRECT)
        assert turned[14:] == other.packet[14:]
        return turned

    def tcp(flags: str) -> Packet:
        return f.tcp(f.world, f.host, flags, 4000, PORT)

    def answer(flags: str) -> Packet:
        return f.tcp(f.r, f.host, flags, BIND, port)

    assert run(wire, came(tcp("S")))[0] == XDP_PASS
    first = Ether(send(wire, "net", tcp("S")).packet)
    assert run(wire, came(tcp("A")))[0] == XDP_PASS, "conntrack is to see the handshake"
    if not direct:
        port = first[TCP_LAYER].sport
        assert run(wire, came(answer("SA")))[0] == XDP_PASS
        send(wire, "net", answer("SA"))
    send(wire, "net", tcp("A"))
    if not direct:
        (known,) = (value for _, value in wire.nat.items())
        assert known.flags & CtFlag.ESTABLISHED
    for _ in range(2):
        both(tcp("PA") / data)
        if not direct:
            both(answer("PA") / data)
    assert run(wire, came(tcp("FA")))[0] == XDP_PASS
    datagram = f.udp(f.world, f.host, 4000, PORT)
    assert run(wire, came(datagram))[0] == XDP_PASS
    sent = Ether(send(wire, "net", datagram).packet)
    if direct:
        assert run(wire, came(datagram))[0] == XDP_PASS, "each names its frontend"
        return
    both(datagram)
    both(f.udp(f.r, f.host, BIND, sent[UDP].sport))


def test_a_link_is_replaced_in_place_and_ends_with_its_pin(wire: World) -> None:
    """What cannot run programs says so; another device under the same pin is another link."""
    assert wire.apart
    program, pin, uplink = wire.programs["xdp.frags"], wire.bpffs / "xdp_uplink", wire.ifindex["uplink"]

    def ended(device: str) -> None:
        deadline = time.monotonic() + 5
        while xdp_program(wire.ifindex[device]):  # the kernel lets go of a link when it has time
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def visit() -> None:
        assert attach_xdp(program, uplink, pin) == "updated"
        assert xdp_program(uplink) == program.info.id
        other = wire.bpffs / "xdp_other"
        assert attach_xdp(program, wire.ifindex["A"], other) == "attached"
        assert attach_xdp(program, wire.ifindex["B"], other) == "attached"
        ended("A")
        assert xdp_program(wire.ifindex["B"]) == program.info.id
        assert detach(other)
        ended("B")
        subprocess.run(["ip", "link", "add", "br0", "type", "bridge"], check=True, timeout=10)
        try:
            with pytest.raises(KernelRefused) as refused:
                attach_xdp(program, socket.if_nametoindex("br0"), other)
            assert refused.value.code == errno.EOPNOTSUPP
        finally:
            subprocess.run(["ip", "link", "del", "br0"], check=True, timeout=10)

    wire.apart.call(visit)
