"""Clients outside and backends of other nodes: where packets go, and in whose name they are answered."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest
from msgspec.structs import replace
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, ICMPv6TimeExceeded, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from cirri.layout import (
    DSR,
    LB_FLOWS,
    LB_SERVICES,
    DropReason,
    EndpointFlag,
    IpcacheKey,
    IpcacheValue,
    LbFlag,
    LbScope,
    LbService,
    LbServiceKey,
    address16,
)
from cirri.testing.datapath import HOST4, HOST6, NEXT_HOP4, NEXT_HOP6, World
from cirri.testing.fronts import BIND, VIP, back, big, into, out, same_but_inner_checksum, serve
from cirri.testing.packets import (
    FAMILIES,
    NEIGHBOUR_MAC,
    UPLINK_MAC,
    Case,
    Do,
    Family,
    Send,
    play,
    send,
)

CLIENT, DOOR = 4000, 30080
NEW = ("new",)


def onward(packet: Packet) -> bytes:
    """The frame in which *packet* is redirected by the uplink."""
    return bytes(Ether(src=NEIGHBOUR_MAC, dst=UPLINK_MAC) / packet)


def naming(packet: Packet, address: str, port: int) -> Packet:
    """*packet* with the option that names a frontend."""
    place = port.to_bytes(2, "big"), ip_address(address).packed
    if packet.version == 4:
        option = b"\x9a\x08" + place[0] + place[1]
        head = packet.copy()
        payload = bytes(head.payload)
        head.remove_payload()
        whole = bytes(IP(src=head.src, dst=head.dst, ttl=head.ttl, id=head.id, flags=head.flags,
                         frag=head.frag, proto=packet.proto, ihl=7, len=28 + len(payload)))  # fmt: skip
        header = bytearray(whole[:20] + option)
        header[10:12] = bytes(2)
        total = sum(int.from_bytes(header[i : i + 2], "big") for i in range(0, 28, 2))
        total = (total & 0xFFFF) + (total >> 16)
        header[10:12] = (~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2, "big")
        return Raw(bytes(header) + payload)
    inner = bytes(packet)
    option = bytes((inner[6], 2, 0x1B, 20)) + place[1] + place[0] + bytes(2)
    length = int.from_bytes(inner[4:6], "big") + 24
    return Raw(inner[:4] + length.to_bytes(2, "big") + b"\x3c" + inner[7:40] + option + inner[40:])


def wire(version: int, packet: Packet) -> bytes:
    """The frame in which bytes of *version* come by the uplink."""
    return bytes(Ether(src=NEIGHBOUR_MAC, dst=UPLINK_MAC, type=0x800 if version == 4 else 0x86DD) / packet)


def serve_inside(address: str, port: int) -> Do:
    """A frontend that sockets of this node may name, as they may each node's."""

    def do(world: World) -> None:
        for protocol in (6, 17):
            key = LbServiceKey(address=address16(address), port=port, protocol=protocol)
            assert key.scope == LbScope.INTERNAL
            world.lb[LB_SERVICES.name].put(key, LbService(id=9, frontend=9, count=0))

    return Do(do)


def own_addresses(world: World) -> None:
    """What leaves in this node's name leaves under these."""
    config = world.runtime[0]
    world.runtime.put(0, replace(config, nat4=address16(HOST4), nat6=address16(HOST6)))


OWN = Do(own_addresses)
PORT = 50000
"""Of a client: one that the node may use itself, and so keeps."""


def hidden(f: Family) -> Iterator[Case]:
    """A backend elsewhere sees this node, and what it answers comes from the frontend."""
    for what, address, door in (("node port", f.host, DOOR), ("own address", VIP[f.version], 80)):

        def asks(flags: str, address: str = address, door: int = door) -> Packet:
            return f.tcp(f.world, address, flags, PORT, door)

        def asked(flags: str) -> bytes:
            return onward(f.tcp(f.host, f.r, flags, PORT, BIND, ttl=63))

        yield Case(
            f"{f.name} hidden TCP {what}",
            (
                OWN,
                serve(address, door, f.r),
                Send("net", asks("S"), asked("S")),
                Send("net", f.tcp(f.r, f.host, "SA", BIND, PORT),
                     onward(f.tcp(address, f.world, "SA", door, PORT, ttl=63))),
                Do(lambda world: port_noted(world, PORT)),
                # What was hidden stays so, and the other way round.
                serve(address, door, f.r, flags=LbFlag.DSR),
                Send("net", asks("A"), asked("A")),
                serve(address, door, f.b, leaving=(f.r,)),
                Send("net", asks("A"), asked("A")),
                Send("net", asks("S"), into("B", f.tcp(f.world, f.b, "S", PORT, BIND, ttl=63)), NEW),
            ),
        )  # fmt: skip
    yield Case(
        f"{f.name} hidden UDP, also to a place outside",
        (
            OWN,
            *(
                step
                for there in (f.r, f.cidr)
                for step in (
                    serve(f.host, DOOR, there),
                    Send("net", f.udp(f.world, f.host, PORT, DOOR),
                         onward(f.udp(f.host, there, PORT, BIND, ttl=63))),
                    Send("net", f.udp(there, f.host, BIND, PORT, size=99),
                         onward(f.udp(f.host, f.world, DOOR, PORT, size=99, ttl=63))),
                )
            ),
        ),
    )  # fmt: skip
    yield Case(
        f"{f.name} two clients with one port",
        (OWN, serve(f.host, DOOR, f.r), Do(lambda world: two_clients(world, f))),
    )
    yield Case(
        f"{f.name} no address to hide behind",
        (
            serve(f.host, DOOR, f.r),
            Send("net", f.tcp(f.world, f.host, "S", PORT, DOOR), DropReason.NAT_NO_MAPPING),
            # What was not sent on is of neither kind yet.
            OWN,
            Send(
                "net",
                f.tcp(f.world, f.host, "S", PORT, DOOR),
                onward(f.tcp(f.host, f.r, "S", PORT, BIND, ttl=63)),
            ),
        ),
    )
    first, second = f.fragments(f.world, f.host, UDP(sport=PORT, dport=DOOR) / Raw(b"d" * 60))
    whole = f.udp(f.host, f.r, PORT, BIND, size=0) / Raw(b"d" * 60)
    one, two = f.fragments(f.host, f.r, whole[UDP])
    back_first, back_second = f.fragments(f.r, f.host, UDP(sport=BIND, dport=PORT) / Raw(b"d" * 60))
    whole = f.udp(f.host, f.world, DOOR, PORT, size=0) / Raw(b"d" * 60)
    back_one, back_two = f.fragments(f.host, f.world, whole[UDP])
    for each in (one, two, back_one, back_two):
        setattr(each, "ttl" if f.version == 4 else "hlim", 63)
    yield Case(
        f"{f.name} hidden fragments",
        (
            OWN,
            serve(f.host, DOOR, f.r),
            Send("net", first, onward(one)),
            Send("net", second, onward(two)),
            Send("net", back_first, onward(back_one)),
            Send("net", back_second, onward(back_two)),
        ),
    )


def port_noted(world: World, port: int) -> None:
    (flow,) = world.lb[LB_FLOWS.name].to_dict().values()
    assert flow.nat_port == port


def two_clients(world: World, f: Family) -> None:
    """The second gets another port, and each its answer."""
    ports = []
    for client in (f.world, f.cidr):
        got = Ether(send(world, "net", f.tcp(client, f.host, "S", PORT, DOOR)).packet)
        ports.append(got[TCP].sport)
        answer = f.tcp(f.r, f.host, "SA", BIND, ports[-1])
        assert send(world, "net", answer).packet == onward(f.tcp(f.host, client, "SA", DOOR, PORT, ttl=63))
    assert ports[0] == PORT != ports[1] >= 49152


def errors(f: Family) -> Iterator[Case]:
    """ICMP errors about what was forwarded are about what their receiver knows."""
    vip = VIP[f.version]
    asks, asked = f.udp(f.world, vip, PORT, 53, ttl=63), f.udp(f.host, f.r, PORT, BIND, ttl=63)
    hides = (OWN, serve(vip, 53, f.r), Send("net", f.udp(f.world, vip, PORT, 53), onward(asked)))
    for who, source, seen in (("backend", f.r, vip), ("router", f.node, f.node)):
        told, known = f.error(source, f.host, asked), f.error(seen, f.world, asks)
        yield Case(f"{f.name} error of a {who}", (*hides, error(f, told, known)))
    answer, answered = f.udp(f.r, f.host, BIND, PORT), f.udp(vip, f.world, 53, PORT, ttl=63)
    told, known = big(f, f.world, vip, answered), big(f, f.host, f.r, answer)
    yield Case(f"{f.name} error of a client", (*hides, error(f, told, known)))
    named = wire(f.version, naming(f.udp(f.world, f.r, PORT, BIND, ttl=63), vip, 53))
    direct = (serve(vip, 53, f.r, flags=LbFlag.DSR), Send("net", f.udp(f.world, vip, PORT, 53), named))
    known = big(f, f.world, f.r, f.udp(f.r, f.world, BIND, PORT))
    yield Case(f"{f.name} error of a client about a direct answer", (*direct, error(f, told, known)))
    inside = f.udp(f.world, f.a, PORT, BIND, ttl=63)
    told, known = f.error(f.a, f.world, inside), f.error(vip, f.world, f.udp(f.world, vip, PORT, 53))
    yield Case(
        f"{f.name} error of a pod whose client named a frontend",
        (
            serve_inside(vip, 53),
            Send("net", wire(f.version, naming(f.udp(f.world, f.a, PORT, BIND), vip, 53)),
                 into("A", inside), NEW),
            Do(lambda world: same_but_inner_checksum(f, send(world, "A", told).packet, out("A", known))),
        ),
    )  # fmt: skip


def error(f: Family, told: Packet, known: Packet) -> Do:
    """An error by the uplink, and how it goes on."""
    return Do(lambda world: same_but_inner_checksum(f, send(world, "net", told).packet, onward(known)))


def direct_out(f: Family) -> Iterator[Case]:
    """What opens a TCP connection names its frontend, and every datagram does; the client's source stays."""

    def come(kind: str, **more: int) -> Packet:
        return f.tcp(f.world, f.host, kind, CLIENT, DOOR, **more)

    def go(kind: str) -> Packet:
        return f.tcp(f.world, f.r, kind, CLIENT, BIND, ttl=63)

    yield Case(
        f"{f.name} direct TCP",
        (
            serve(f.host, DOOR, f.r, flags=LbFlag.DSR),
            Send("net", come("S"), wire(f.version, naming(go("S"), f.host, DOOR))),
            Send("net", come("A"), onward(go("A"))),
            Send("net", come("S"), wire(f.version, naming(go("S"), f.host, DOOR))),
            serve(f.host, DOOR, f.r),
            Send("net", come("A"), onward(go("A"))),
        ),
    )
    ask, asked = f.udp(f.world, VIP[f.version], 5000, 53), f.udp(f.world, f.r, 5000, BIND, ttl=63)
    named = wire(f.version, naming(asked, VIP[f.version], 53))
    yield Case(
        f"{f.name} direct UDP",
        (serve(VIP[f.version], 53, f.r, flags=LbFlag.DSR), Send("net", ask, named), Send("net", ask, named)),
    )
    # None of the cluster's nodes takes off what a packet for a place outside names.
    yield Case(
        f"{f.name} not to a place outside",
        (
            OWN,
            serve(f.host, DOOR, f.cidr, flags=LbFlag.DSR),
            Send("net", f.tcp(f.world, f.host, "S", PORT, DOOR),
                 onward(f.tcp(f.host, f.cidr, "S", PORT, BIND, ttl=63))),
        ),
    )  # fmt: skip
    yield Case(
        f"{f.name} a client names none",
        (
            serve(f.host, DOOR, f.r, f.a),
            Send("net", wire(f.version, naming(come("S"), f.host, 53)), DropReason.INVALID),
        ),
    )
    first, second = f.fragments(f.world, f.host, UDP(sport=5000, dport=DOOR) / Raw(b"d" * 60))
    whole = f.udp(f.world, f.r, 5000, BIND, size=0) / Raw(b"d" * 60)
    one, two = f.fragments(f.world, f.r, whole[UDP])
    for each in (one, two):
        setattr(each, "ttl" if f.version == 4 else "hlim", 63)
    yield Case(
        f"{f.name} direct fragments",
        (
            serve(f.host, DOOR, f.r, flags=LbFlag.DSR),
            Send("net", first, onward(one)),
            Send("net", second, wire(f.version, naming(two, f.host, DOOR))),
        ),
    )


def direct_in(f: Family) -> Iterator[Case]:
    """The backend's node takes the name off, and answers in it: whoever it named."""
    door = f.node
    first = wire(f.version, naming(f.tcp(f.world, f.a, "S", CLIENT, BIND), door, DOOR))
    inside = into("A", f.tcp(f.world, f.a, "S", CLIENT, BIND, ttl=63))
    answers = (
        Send("A", f.tcp(f.a, f.world, "SA", BIND, CLIENT),
             out("A", f.tcp(door, f.world, "SA", DOOR, CLIENT, ttl=63))),
        Send("net", f.tcp(f.world, f.a, "A", CLIENT, BIND),
             into("A", f.tcp(f.world, f.a, "A", CLIENT, BIND, ttl=63))),
        Send("A", f.tcp(f.a, f.world, "A", BIND, CLIENT),
             out("A", f.tcp(door, f.world, "A", DOOR, CLIENT, ttl=63))),
    )  # fmt: skip
    yield Case(f"{f.name} named TCP", (serve_inside(door, DOOR), Send("net", first, inside, NEW), *answers))
    yield Case(f"{f.name} unknown name", (Send("net", first, DropReason.NO_BACKEND),))
    yield Case(
        f"{f.name} named, denied, not noted",
        (
            serve_inside(door, DOOR),
            Do(lambda world: send(world, "net", first)),
            Do(none_noted),
        ),
        {"A": EndpointFlag.ENFORCE_INGRESS},
    )
    asked = f.udp(f.world, f.a, 5000, BIND)
    yield Case(
        f"{f.name} named UDP, then by another name",
        (
            serve_inside(door, 53),
            serve_inside(VIP[f.version], 53),
            *(
                step
                for name, events in ((door, NEW), (VIP[f.version], ()), (VIP[f.version], ()))
                for step in (
                    Send("net", wire(f.version, naming(asked, name, 53)),
                         into("A", f.udp(f.world, f.a, 5000, BIND, ttl=63)), events),
                    Send("A", f.udp(f.a, f.world, BIND, 5000),
                         out("A", f.udp(name, f.world, 53, 5000, ttl=63))),
                )
            ),
        ),
    )  # fmt: skip


def named_fragments(f: Family) -> Iterator[Case]:
    """The last fragment names the frontend of all."""
    first, second = f.fragments(f.world, f.a, UDP(sport=5000, dport=BIND) / Raw(b"d" * 60))
    one, two = f.fragments(f.world, f.a, UDP(sport=5000, dport=BIND) / Raw(b"d" * 60))
    for each in (one, two):
        setattr(each, "ttl" if f.version == 4 else "hlim", 63)
    yield Case(
        f"{f.name} named fragments",
        (
            serve_inside(f.node, DOOR),
            Send("net", first, into("A", one), NEW),
            Send("net", wire(f.version, naming(second, f.node, DOOR)), into("A", two)),
            Send("A", f.udp(f.a, f.world, BIND, 5000), out("A", f.udp(f.node, f.world, DOOR, 5000, ttl=63))),
        ),
    )


def inside_ip(f: Family, source: str, destination: str, packet: Packet) -> bytes:
    """The frame in which *packet* travels inside another one, by the uplink."""
    if f.version == 4:
        return onward(IP(src=source, dst=destination, id=0, ttl=64) / packet)
    return onward(IPv6(src=source, dst=destination, hlim=64) / packet)


def know_node(world: World) -> None:
    """The other node is known as one."""
    for address in (NEXT_HOP4, NEXT_HOP6):
        world.ipcache.put(IpcacheKey.of(ip_network(address)), IpcacheValue(identity=6))


def encapsulated(f: Family) -> Iterator[Case]:
    """Inside IP: what names its frontend else travels whole; ports have to be the same."""
    flags = LbFlag.DSR | LbFlag.DSR_IPIP
    door = f.host

    def come(kind: str) -> Packet:
        return f.tcp(f.world, door, kind, CLIENT, BIND)

    yield Case(
        f"{f.name} inside IP",
        (
            OWN,
            serve(door, BIND, f.r, flags=flags),
            Send("net", come("S"), inside_ip(f, f.host, f.r, come("S"))),
            Send("net", come("A"), onward(f.tcp(f.world, f.r, "A", CLIENT, BIND, ttl=63))),
            serve(door, DOOR, f.r, flags=flags, number=2),
            Send("net", f.tcp(f.world, door, "S", PORT, DOOR),
                 onward(f.tcp(f.host, f.r, "S", PORT, BIND, ttl=63))),
        ),
    )  # fmt: skip
    asked = inside_ip(f, f.node, f.a, f.udp(f.world, f.node, 5000, BIND))
    first, _ = f.fragments(f.world, f.a, UDP(sport=5000, dport=BIND) / Raw(b"d" * 60))
    last = f.fragments(f.world, f.node, UDP(sport=5000, dport=BIND) / Raw(b"d" * 60))[1]
    one, two = f.fragments(f.world, f.a, UDP(sport=5000, dport=BIND) / Raw(b"d" * 60))
    for each in (one, two):
        setattr(each, "ttl" if f.version == 4 else "hlim", 63)
    answered = Send("A", f.udp(f.a, f.world, BIND, 5000),
                    out("A", f.udp(f.node, f.world, BIND, 5000, ttl=63)))  # fmt: skip
    inside = into("A", f.udp(f.world, f.a, 5000, BIND, ttl=63))
    yield Case(
        f"{f.name} out of IP",
        (Do(know_node), serve_inside(f.node, BIND), Send("net", asked, inside, NEW), answered),
    )
    yield Case(
        f"{f.name} fragments out of IP",
        (
            Do(know_node),
            serve_inside(f.node, BIND),
            Send("net", first, into("A", one), NEW),
            Send("net", inside_ip(f, f.node, f.a, last), into("A", two)),
            answered,
        ),
    )
    yield Case(
        f"{f.name} out of IP of somebody",
        (serve_inside(f.node, BIND), Send("net", asked, DropReason.UNKNOWN_L4)),
    )
    yield Case(
        f"{f.name} out of IP for an unknown name",
        (Do(know_node), Do(lambda world: send(world, "net", asked)), Do(none_noted)),
    )


def none_noted(world: World) -> None:
    """And nothing passed."""
    assert not world.ct.to_dict()
    assert not world.lb[DSR.name].to_dict()


def too_long(f: Family, about: Raw, mtu: int = 1500) -> Packet:
    """What the node says, in the frontend's name, of a client's packet that begins with *about*."""
    if f.version == 4:
        return IP(src=f.host, dst=f.world, id=0, ttl=64) / ICMP(type=3, code=4, nexthopmtu=mtu) / about
    return IPv6(src=f.host, dst=f.world, hlim=64) / ICMPv6PacketTooBig(mtu=mtu) / about


def limits(f: Family) -> Iterator[Case]:
    """What cannot go on is answered in the frontend's name."""
    last = f.tcp(f.world, f.host, "S", CLIENT, DOOR, ttl=1)
    about = Raw(bytes(last)[: 28 if f.version == 4 else 48])
    if f.version == 4:
        exceeded = IP(src=f.host, dst=f.world, id=0, ttl=64) / ICMP(type=11, code=0) / about
    else:
        exceeded = IPv6(src=f.host, dst=f.world, hlim=64) / ICMPv6TimeExceeded() / about
    yield Case(
        f"{f.name} last hop",
        (serve(f.host, DOOR, f.r, flags=LbFlag.DSR), Send("net", last, back(exceeded))),
    )
    more, head = (8, 20) if f.version == 4 else (24, 40)
    fits = 1500 - head - 8 - more
    full = f.udp(f.world, f.host, 5000, DOOR, size=fits)
    long = f.udp(f.world, f.host, 5000, DOOR, size=fits + 1)
    about = Raw(bytes(long)[: head + 8])
    told = too_long(f, about, 1500 - more)
    went = f.udp(f.world, f.r, 5000, BIND, size=fits, ttl=63)
    datagram = UDP(sport=PORT, dport=DOOR) / Raw(b"d" * 3192)
    first, later = f.fragments(f.world, f.host, datagram, size=1600)
    # Its receiver looks for ports behind the fragment header.
    about = Raw(bytes(first)[: 28 if f.version == 4 else 56])
    cut = too_long(f, about)
    yield Case(
        f"{f.name} fragments that are too long",
        (
            OWN,
            serve(f.host, DOOR, f.r),
            Send("net", first, back(cut)),
            Send("net", later, DropReason.INVALID),
            Send("net", f.udp(f.world, f.host, PORT, DOOR), onward(f.udp(f.host, f.r, PORT, BIND, ttl=63))),
        ),
    )
    fresh = f.udp(f.world, f.host, PORT, DOOR, size=2000)
    start = Raw(bytes(fresh)[: 28 if f.version == 4 else 48])
    told_whole = too_long(f, start)
    yield Case(
        f"{f.name} hidden, what is sent again after it was too long",
        (
            OWN,
            serve(f.host, DOOR, f.r),
            Send("net", fresh, back(told_whole)),
            Send("net", f.udp(f.world, f.host, PORT, DOOR), onward(f.udp(f.host, f.r, PORT, BIND, ttl=63))),
        ),
    )
    yield Case(
        f"{f.name} too long with a name",
        (
            serve(f.host, DOOR, f.r, flags=LbFlag.DSR),
            Send("net", full, wire(f.version, naming(went, f.host, DOOR))),
            Send("net", long, back(told)),
        ),
    )


CASES = [
    case for f in FAMILIES for make in (hidden, errors, direct_out, direct_in, limits) for case in make(f)
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forwarded(shared_world: World, case: Case) -> None:
    play(shared_world, case)
