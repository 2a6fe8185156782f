"""Services for packets of pods, where their sockets do not look for them."""

from collections.abc import Iterator
from functools import partial

import pytest
from msgspec.structs import replace
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach
from scapy.packet import Packet, Raw

from cirri.layout import DropReason, EndpointFlag, LbFlag, LbScope, PolicyDirection, RuntimeFlag
from cirri.testing.datapath import PODS, TC_OK, Entry, World, mac
from cirri.testing.fronts import BIND, TCP_, UDP_, into, out, serve
from cirri.testing.packets import FAMILIES, STACK, V4, Case, Do, Family, Send, frame, play, send

VIP = {4: "10.96.0.10", 6: "fd00:10:96::10"}
SELF = {4: "169.254.42.1", 6: "fd42::1"}
SCTP_ = 132
NEW = ("new",)


def looks(world: World) -> None:
    config = world.runtime[0]
    world.runtime.put(0, replace(config, flags=config.flags | RuntimeFlag.POD_SERVICES))


LOOK = Do(looks)


def inside(address: str, port: int, *backends: str, bind: int = BIND, flags: int = 0,
           protocols: tuple[int, ...] = (TCP_, UDP_), affinity_s: int = 0) -> Do:  # fmt: skip
    return serve(address, port, *backends, bind=bind, flags=flags, protocols=protocols,
                 affinity_s=affinity_s, scope=LbScope.INTERNAL)  # fmt: skip


def ways(f: Family) -> Iterator[Case]:
    """To a pod of this node, to one of another, through the stack; by every address that has frontends."""
    for what, address, port in (("own address", VIP[f.version], 80), ("node port", f.host, 30080),
                                ("node port elsewhere", f.node, 30080)):  # fmt: skip
        yield Case(
            f"pods {f.name} {what}, a pod here",
            (
                LOOK,
                inside(address, port, f.b),
                Send("A", f.tcp(f.a, address, "S", 4000, port),
                     into("B", f.tcp(f.a, f.b, "S", 4000, BIND, ttl=63)), NEW),
                Send("B", f.tcp(f.b, f.a, "SA", BIND, 4000),
                     into("A", f.tcp(address, f.a, "SA", port, 4000, ttl=63))),
                Send("A", f.tcp(f.a, address, "A", 4000, port),
                     into("B", f.tcp(f.a, f.b, "A", 4000, BIND, ttl=63))),
            ),
        )  # fmt: skip
    vip = VIP[f.version]
    asked = f.udp(f.a, vip, 4000, 53, size=99)
    sent = out("A", f.udp(f.a, f.r, 4000, BIND, size=99, ttl=63))
    answer, known = f.udp(f.r, f.a, BIND, 4000), f.udp(vip, f.a, 53, 4000)
    elsewhere = (LOOK, inside(vip, 53, f.r), Send("A", asked, sent, NEW))
    known.ttl = known.hlim = 63
    yield Case(f"pods {f.name} a pod elsewhere", (*elsewhere, Send("net", answer, into("A", known))))
    yield Case(
        f"pods {f.name} its answer by the stack", (*elsewhere, Do(lambda w: by_stack(w, f, answer, vip)))
    )
    yield Case(f"pods {f.name} sockets look", (inside(vip, 53, f.r), Send("A", asked, STACK, NEW)))
    yield Case(f"pods {f.name} another port", (LOOK, inside(vip, 54, f.r), Send("A", asked, STACK, NEW)))


def by_stack(world: World, f: Family, answer: Packet, vip: str) -> None:
    result = send(world, "~A", answer)
    assert (result.action, result.packet) == (TC_OK, frame("~A", f.udp(vip, f.a, 53, 4000)))


def policy(f: Family) -> Iterator[Case]:
    """It is asked about the backend, and its port."""
    vip, b = VIP[f.version], PODS["B"]
    closed = {"A": EndpointFlag.ENFORCE_EGRESS, "B": EndpointFlag.ENFORCE_INGRESS}
    first = f.tcp(f.a, vip, "S", 4000, 80)
    entries = (
        Entry("A", PolicyDirection.EGRESS, b.identity, TCP_, BIND, 16, rule=7),
        Entry("B", PolicyDirection.INGRESS, PODS["A"].identity, TCP_, BIND, 16, rule=8),
    )
    yield Case(
        f"pods {f.name} policy allows the backend",
        (
            LOOK,
            inside(vip, 80, f.b),
            Send("A", first, into("B", f.tcp(f.a, f.b, "S", 4000, BIND, ttl=63)),
                 ("egress allow match=2 rule=7", "ingress allow match=2 rule=8", "new")),
        ),
        closed,
        entries,
    )  # fmt: skip
    yield Case(
        f"pods {f.name} policy denies the backend",
        (LOOK, inside(vip, 80, f.b),
         Send("A", first, DropReason.POLICY, ("egress POLICY match=0 rule=0",))),
        closed,
    )  # fmt: skip


def to_itself(f: Family) -> Iterator[Case]:
    """Nobody's policy is asked."""
    vip, own = VIP[f.version], SELF[f.version]
    shut = {"A": EndpointFlag.ENFORCE_EGRESS | EndpointFlag.ENFORCE_INGRESS}
    opened = (
        LOOK,
        inside(vip, 80, f.a),
        Send("A", f.tcp(f.a, vip, "S", 4000, 80), into("A", f.tcp(own, f.a, "S", 4000, BIND, ttl=63)), NEW),
    )
    yield Case(
        f"pods {f.name} a pod to itself",
        (
            *opened,
            Send("A", f.tcp(f.a, own, "SA", BIND, 4000),
                 into("A", f.tcp(vip, f.a, "SA", 80, 4000, ttl=63))),
            Send("A", f.tcp(f.a, vip, "A", 4000, 80), into("A", f.tcp(own, f.a, "A", 4000, BIND, ttl=63))),
        ),
        shut,
    )  # fmt: skip
    yield Case(
        f"pods {f.name} a pod to itself, not as an answer",
        (*opened, Send("A", f.tcp(f.a, own, "R", BIND, 4001), DropReason.UNROUTABLE)),
    )
    for at in ("net", "~A"):
        yield Case(
            f"pods {f.name} others in its name, {at}",
            (*opened, Send(at, f.tcp(own, f.a, "A", 4000, BIND), DropReason.INVALID_SOURCE_IP)),
        )
    asked = f.udp(own, f.a, 5000, BIND, ttl=63)
    yield Case(
        f"pods {f.name} a pod to itself, refused",
        (
            LOOK,
            inside(vip, 53, f.a),
            Send("A", f.udp(f.a, vip, 5000, 53), into("A", asked), NEW),
            Do(lambda w: same_error(w, f, "A", f.error(f.a, own, asked),
                                    f.error(vip, f.a, f.udp(f.a, vip, 5000, 53)))),
        ),
    )  # fmt: skip


def nobody(f: Family) -> Iterator[Case]:
    vip = VIP[f.version]
    packet = f.udp(f.a, vip, 4000, 53, size=100)
    about = Raw(bytes(packet)[: 28 if f.version == 4 else 48])
    if f.version == 4:
        answer = IP(src=vip, dst=f.a, id=0, ttl=64) / ICMP(type=3, code=3) / about
    else:
        answer = f.ip(vip, f.a) / ICMPv6DestUnreach(code=4) / about
    told = ("drop NO_BACKEND egress",)
    yield Case(
        f"pods {f.name} nobody, refused", (LOOK, inside(vip, 53), Send("A", packet, into("A", answer), told))
    )
    reset = f.ip(vip, f.a)
    if f.version == 4:
        reset.id, reset.flags = 0, "DF"
    reset /= TCP(sport=80, dport=4000, seq=0, ack=1, flags="RA", window=0)
    syn = Send("A", f.tcp(f.a, vip, "S", 4000, 80), into("A", reset), told)
    yield Case(f"pods {f.name} nobody, reset", (LOOK, inside(vip, 80), syn))
    yield Case(
        f"pods {f.name} nobody, no answer",
        (LOOK, inside(vip, 53, flags=LbFlag.DROP_EMPTY), Send("A", packet, DropReason.NO_BACKEND)),
    )


def errors(f: Family) -> Iterator[Case]:
    """About translated connections: what their receiver is told is about what it knows."""
    vip = VIP[f.version]
    asked, sent = f.udp(f.a, vip, 5000, 53), f.udp(f.a, f.r, 5000, BIND, ttl=63)
    opened = (LOOK, inside(vip, 53, f.r), Send("A", asked, out("A", sent), NEW))
    answered, seen = f.udp(f.r, f.a, BIND, 5000), f.udp(vip, f.a, 53, 5000, ttl=63)
    rows = (
        ("of the backend", "net", f.error(f.r, f.a, sent), f.error(vip, f.a, asked)),
        ("of a router", "net", f.error(f.world, f.a, sent), f.error(f.world, f.a, asked)),
        ("of the client", "A", f.error(f.a, vip, seen), f.error(f.a, f.r, answered)),
    )
    for what, at, told, known in rows:
        yield Case(
            f"pods {f.name} an error {what}",
            (
                *opened,
                Send("net", answered, into("A", seen)),
                Do(partial(same_error, f=f, at=at, told=told, known=known)),
            ),
        )


def same_error(world: World, f: Family, at: str, told: Packet, known: Packet) -> None:
    """Sent as *told*, it arrives as *known*: addresses, and the addresses and ports within."""
    result = send(world, at, told)
    assert result.action == 7, [(e.type, e.reason) for e in result.events]
    got, wanted = result.packet, bytes(14) + bytes(known)
    inner = 14 + (28 if f.version == 4 else 48)
    head = slice(inner + (12 if f.version == 4 else 8), inner + (24 if f.version == 4 else 44))
    addresses = slice(26, 34) if f.version == 4 else slice(22, 54)
    assert got[addresses] == wanted[addresses]
    assert got[head] == wanted[head]
    fresh = (IP if f.version == 4 else type(known))(got[14:])
    layer = fresh.payload
    name = "chksum" if f.version == 4 else "cksum"
    was = getattr(layer, name)
    delattr(layer, name)
    again = type(fresh)(bytes(fresh))
    assert getattr(again.payload, name) == was


def fragmented(f: Family) -> Case:
    vip = VIP[f.version]
    first, second = f.fragments(f.a, vip, UDP(sport=5000, dport=53) / Raw(b"d" * 60))
    whole = f.udp(f.a, f.b, 5000, BIND, size=0) / Raw(b"d" * 60)
    arrive = f.fragments(f.a, f.b, whole[UDP])
    back = f.fragments(f.b, f.a, UDP(sport=BIND, dport=5000) / Raw(b"e" * 60))
    whole = f.udp(vip, f.a, 53, 5000, size=0) / Raw(b"e" * 60)
    known = f.fragments(vip, f.a, whole[UDP])
    for each in (*arrive, *known):
        each.ttl = each.hlim = 63
    return Case(
        f"pods {f.name} fragments",
        (
            LOOK,
            inside(vip, 53, f.b),
            Send("A", first, into("B", arrive[0]), NEW),
            Send("A", second, into("B", arrive[1])),
            Send("B", back[0], into("A", known[0])),
            Send("B", back[1], into("A", known[1])),
        ),
    )


def associated(f: Family, source: str, destination: str, ttl: int = 64, *, back: bool = False) -> Packet:
    """From port 5000 to 9000, or *back*."""
    made = f.sctp(source, destination)
    made.ttl = made.hlim = ttl
    if back:
        raw = bytes(made[Raw])
        made[Raw].load = raw[2:4] + raw[:2] + raw[4:]
    return made


def sctp_outside(f: Family) -> Case:
    def packet(source: str, destination: str, ttl: int = 64, *, back: bool = False) -> Packet:
        return associated(f, source, destination, ttl, back=back)

    return Case(
        f"pods {f.name} SCTP from outside",
        (
            serve(f.host, 9000, f.b, bind=9000, protocols=(SCTP_,)),
            Send("net", packet(f.world, f.host), into("B", packet(f.world, f.b, 63)), NEW),
            Send("B", packet(f.b, f.world, back=True), out("B", packet(f.host, f.world, 63, back=True))),
        ),
    )


def sctp(f: Family) -> Case:
    """Addresses alone: the checksum covers ports, and no address."""
    vip = VIP[f.version]

    def packet(source: str, destination: str, ttl: int = 64, *, back: bool = False) -> Packet:
        return associated(f, source, destination, ttl, back=back)

    return Case(
        f"pods {f.name} SCTP",
        (
            LOOK,
            inside(vip, 9000, f.b, bind=9000, protocols=(SCTP_,)),
            Send("A", packet(f.a, vip), into("B", packet(f.a, f.b, 63)), NEW),
            Send("B", packet(f.b, f.a, back=True), into("A", packet(vip, f.a, 63, back=True))),
        ),
    )


CASES = [case for f in FAMILIES for make in (ways, policy, to_itself, nobody, errors) for case in make(f)] + [
    make(f) for f in FAMILIES for make in (fragmented, sctp, sctp_outside)
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pod_services(shared_world: World, case: Case) -> None:
    play(shared_world, case)


@pytest.mark.parametrize(("affinity_s", "least"), [(0, 6), (60, 0)])
def test_backends_share_and_affinity_keeps(shared_world: World, affinity_s: int, least: int) -> None:
    shared_world.reset()
    looks(shared_world)
    inside(VIP[4], 80, V4.r, V4.b, affinity_s=affinity_s).what(shared_world)
    to_b = 0
    for port in range(1000, 1060):
        to_b += send(shared_world, "A", V4.tcp(V4.a, VIP[4], "S", port, 80)).packet[:6] == mac(PODS["B"].mac)
    assert least <= min(to_b, 60 - to_b) <= (30 if least else 0)
