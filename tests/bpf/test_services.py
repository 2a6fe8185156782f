"""Services for packets from the wire: to a pod of this node and back, policy as if there were no Service."""

from collections.abc import Iterator
from functools import partial

import pytest
from msgspec.structs import replace
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach
from scapy.packet import Packet, Raw

from cirri.layout import (
    LB_AFFINITY,
    DropReason,
    EndpointFlag,
    LbFlag,
    PolicyDirection,
    RuntimeFlag,
)
from cirri.testing.datapath import PODS, TC_OK, Entry, World, mac
from cirri.testing.fronts import BIND, TCP_, VIP, back, big, into, out, same_but_inner_checksum, serve
from cirri.testing.packets import (
    FAMILIES,
    STACK,
    V4,
    Case,
    Do,
    Family,
    Send,
    connections,
    frame,
    play,
    send,
)

NEW = ("new",)


def node_serves(world: World) -> None:
    config = world.runtime[0]
    world.runtime.put(0, replace(config, flags=config.flags | RuntimeFlag.NODE_SERVES))


def passes(at: str, sent: Packet, seen: Packet) -> Do:
    """*sent* goes on its way as *seen*."""

    def do(world: World) -> None:
        result = send(world, at, sent)
        assert (result.action, result.packet) == (TC_OK, frame(at, seen)), result.events

    return Do(do)


def no_checksum(packet: Packet) -> Packet:
    packet[UDP].chksum = 0
    return packet


def both_ways(f: Family) -> Iterator[Case]:
    """A frontend under the node's address, one under its own, and what is none."""
    for what, address, port in (("node port", f.host, 30080), ("own address", VIP[f.version], 80)):
        yield Case(
            f"{f.name} {what} TCP",
            (
                serve(address, port, f.a),
                Send("net", f.tcp(f.world, address, "S", 4000, port),
                     into("A", f.tcp(f.world, f.a, "S", 4000, BIND, ttl=63)), NEW),
                Send("A", f.tcp(f.a, f.world, "SA", BIND, 4000),
                     out("A", f.tcp(address, f.world, "SA", port, 4000, ttl=63))),
                Send("net", f.tcp(f.world, address, "A", 4000, port),
                     into("A", f.tcp(f.world, f.a, "A", 4000, BIND, ttl=63))),
                Send("net", f.tcp(f.world, address, "S", 4000, port + 1), STACK),
            ),
        )  # fmt: skip
        yield Case(
            f"{f.name} {what} UDP",
            (
                serve(address, port, f.a),
                Send("net", f.udp(f.world, address, 5000, port),
                     into("A", f.udp(f.world, f.a, 5000, BIND, ttl=63)), NEW),
                Send("A", f.udp(f.a, f.world, BIND, 5000, size=99),
                     out("A", f.udp(address, f.world, port, 5000, size=99, ttl=63))),
            ),
        )  # fmt: skip


def policy(f: Family) -> Iterator[Case]:
    """The client's identity counts, and the pod's own port."""
    closed = {"A": EndpointFlag.ENFORCE_INGRESS}
    first = f.tcp(f.world, f.host, "S", 4000, 30080)
    inside = into("A", f.tcp(f.world, f.a, "S", 4000, BIND, ttl=63))
    yield Case(
        f"{f.name} policy denies",
        (
            serve(f.host, 30080, f.a),
            Send("net", first, DropReason.POLICY, ("ingress POLICY match=0 rule=0",)),
        ),
        closed,
    )
    yield Case(
        f"{f.name} policy allows the client at the pod's port",
        (
            serve(f.host, 30080, f.a),
            Send("net", first, inside, ("ingress allow match=2 rule=7", "new")),
            Send("A", f.tcp(f.a, f.world, "SA", BIND, 4000),
                 out("A", f.tcp(f.host, f.world, "SA", 30080, 4000, ttl=63))),
        ),
        closed,
        (Entry("A", PolicyDirection.INGRESS, f.world_identity, TCP_, BIND, 16, rule=7),),
    )  # fmt: skip


def error_goes_out(world: World, f: Family, told: Packet, known: Packet) -> None:
    """The node's own error, sent as *told*, leaves as *known*."""
    same_but_inner_checksum(f, send(world, "node", told).packet, frame("node", known))


def node_itself(f: Family) -> Iterator[Case]:
    """The node's own processes, whose policy is asked while the node has one; an error of its stack."""
    allow = Entry("H", PolicyDirection.INGRESS, f.world_identity, TCP_, BIND, 16, rule=7)
    closed = {"H": EndpointFlag.ENFORCE_INGRESS}
    for address, port in ((f.host, 30080), (VIP[f.version], 80)):
        opened = (Do(node_serves), serve(address, port, f.host))
        asks = f.tcp(f.world, address, "S", 4000, port)
        talk = (
            passes("net", asks, f.tcp(f.world, f.host, "S", 4000, BIND)),
            passes(
                "node", f.tcp(f.host, f.world, "SA", BIND, 4000), f.tcp(address, f.world, "SA", port, 4000)
            ),
            passes("net", f.tcp(f.world, address, "A", 4000, port), f.tcp(f.world, f.host, "A", 4000, BIND)),
            connections(1),
        )
        other = f.tcp(f.host, f.world, "S", BIND, 4001)
        yield Case(
            f"{f.name} the node at {port}", (*opened, *talk, passes("node", other, other), connections(1))
        )
        yield Case(f"{f.name} the node at {port}, asked", (*opened, *talk), closed, (allow,))
        yield Case(
            f"{f.name} the node at {port}, denied",
            (*opened, Send("net", asks, DropReason.POLICY, ("ingress POLICY match=0 rule=0",))),
            closed,
        )
        yield Case(f"{f.name} the node at {port}, asked from now on", (*opened, *talk[:2], Do(shut),
                   Send("net", f.tcp(f.world, address, "A", 4000, port), DropReason.POLICY,
                        ("ingress POLICY match=0 rule=0",))))  # fmt: skip
        known, about = f.udp(f.world, address, 5000, port), f.udp(f.world, f.host, 5000, BIND)
        yield Case(
            f"{f.name} the node at {port}, refused",
            (
                *opened,
                passes("net", known, about),
                Do(partial(error_goes_out, f=f, told=f.error(f.host, f.world, about),
                           known=f.error(address, f.world, known))),
            ),
        )  # fmt: skip


def shut(world: World) -> None:
    """The host firewall comes on, and lets nobody in."""
    world.enforce({"H": EndpointFlag.ENFORCE_INGRESS})
    world.raise_epoch()


def backends(f: Family) -> Iterator[Case]:
    """Who has one keeps it, as long as it is there."""
    at_a, at_b = (
        lambda flags, pod=pod: into(pod, f.tcp(f.world, PODS[pod].address4 if f.version == 4 else
                                               PODS[pod].address6, flags, 4000, BIND, ttl=63))
        for pod in "AB"
    )  # fmt: skip

    def come(flags: str) -> Packet:
        return f.tcp(f.world, f.host, flags, 4000, 30080)

    yield Case(
        f"{f.name} a connection stays where it is",
        (
            serve(f.host, 30080, f.a),
            Send("net", come("S"), at_a("S"), NEW),
            serve(f.host, 30080, f.b, leaving=(f.a,)),
            Send("net", come("A"), at_a("A")),
        ),
    )
    yield Case(
        f"{f.name} a new connection leaves who terminates",
        (
            serve(f.host, 30080, f.a),
            Send("net", come("S"), at_a("S"), NEW),
            serve(f.host, 30080, f.b, leaving=(f.a,)),
            Send("net", come("S"), at_b("S"), NEW),
        ),
    )
    yield Case(
        f"{f.name} what is gone is left",
        (
            serve(f.host, 30080, f.a),
            Send("net", come("S"), at_a("S"), NEW),
            serve(f.host, 30080, f.b),
            Send("net", come("A"), at_b("A"), NEW),
        ),
    )
    yield Case(
        f"{f.name} nobody, no answer",
        (serve(f.host, 30080, flags=LbFlag.DROP_EMPTY), Send("net", come("S"), DropReason.NO_BACKEND)),
    )


def refusal(f: Family) -> Iterator[Case]:
    """Nobody serves: port unreachable, in the frontend's name; TCP is reset, as RFC 9293 has it."""
    packet = f.udp(f.world, f.host, 4000, 30080, size=100)
    about = Raw(bytes(packet)[: 28 if f.version == 4 else 48])
    if f.version == 4:
        answer = IP(src=f.host, dst=f.world, id=0, ttl=64) / ICMP(type=3, code=3) / about
    else:
        answer = f.ip(f.host, f.world) / ICMPv6DestUnreach(code=4) / about
    yield Case(f"{f.name} nobody, refused UDP", (serve(f.host, 30080), Send("net", packet, back(answer))))
    first, later = f.fragments(f.world, f.host, UDP(sport=4000, dport=30080) / Raw(b"d" * 60))
    about = Raw(bytes(first)[: 28 if f.version == 4 else 48])
    yield Case(
        f"{f.name} nobody, a later fragment",
        (
            serve(f.host, 30080),
            Do(lambda w: send(w, "net", first)),
            Send("net", later, DropReason.NO_BACKEND),
        ),
    )
    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
    for what, carried, fields, says in (
        ("SYN", b"", {"flags": "S", "options": options}, {"seq": 0, "ack": 78, "flags": "RA"}),
        ("SYN with data", b"fast", {"flags": "S"}, {"seq": 0, "ack": 82, "flags": "RA"}),
        (
            "at the end of its numbers",
            b"",
            {"flags": "S", "seq": 2**32 - 1},
            {"seq": 0, "ack": 0, "flags": "RA"},
        ),
        ("ACK", b"data" * 300, {"flags": "PA", "ack": 9}, {"seq": 9, "ack": 0, "flags": "R"}),
        ("FIN", b"", {"flags": "FA", "ack": 2**32 - 1}, {"seq": 2**32 - 1, "ack": 0, "flags": "R"}),
        ("RST", b"", {"flags": "R"}, None),
    ):
        ip = f.ip(f.world, f.host)
        segment = ip / TCP(**{"sport": 4000, "dport": 30080, "seq": 77, **fields}) / Raw(carried)
        head = f.ip(f.host, f.world)
        if f.version == 4:
            head.id, head.flags = 0, "DF"
        reset = head / TCP(sport=30080, dport=4000, window=0, **(says or {}))
        came_of_it = back(reset) if says else DropReason.NO_BACKEND
        yield Case(
            f"{f.name} nobody, refused TCP {what}", (serve(f.host, 30080), Send("net", segment, came_of_it))
        )


def ranges(f: Family) -> Iterator[Case]:
    near = "198.51.100.0/24" if f.version == 4 else "2001:db8:1::/48"
    far = "192.0.2.0/24" if f.version == 4 else "2001:db8:9::/48"
    packet = f.tcp(f.world, f.host, "S", 4000, 30080)
    inside = into("A", f.tcp(f.world, f.a, "S", 4000, BIND, ttl=63))
    for flag, listed, passes in (
        (LbFlag.RANGES_ALLOW, near, True),
        (LbFlag.RANGES_ALLOW, far, False),
        (LbFlag.RANGES_DENY, near, False),
        (LbFlag.RANGES_DENY, far, True),
    ):
        yield Case(
            f"{f.name} {flag.name} {listed}",
            (
                serve(f.host, 30080, f.a, flags=flag, ranges=(listed,)),
                Send("net", packet, inside, NEW) if passes else
                Send("net", packet, DropReason.SOURCE_RANGE),
            ),
        )  # fmt: skip


def errors(f: Family) -> Iterator[Case]:
    """ICMP errors about translated connections are about what their receiver knows."""
    vip = VIP[f.version]
    opened = (
        serve(vip, 53, f.a),
        Send("net", f.udp(f.world, vip, 5000, 53), into("A", f.udp(f.world, f.a, 5000, BIND, ttl=63)), NEW),
    )
    seen, asked = f.udp(f.world, f.a, 5000, BIND, ttl=63), f.udp(f.world, vip, 5000, 53, ttl=63)
    told, known = f.error(f.a, f.world, seen), f.error(vip, f.world, asked)
    # The head of a datagram ends with its own checksum, which nobody looks at.
    yield Case(f"{f.name} error from the pod", (*opened, Do(lambda w: error_out(w, f, told, known))))
    sent, answered = f.udp(f.a, f.world, BIND, 5000), f.udp(vip, f.world, 53, 5000, ttl=63)
    yield Case(
        f"{f.name} error to the pod",
        (
            *opened,
            Send("A", sent, out("A", answered)),
            Do(lambda w: error_in(w, f, big(f, f.world, vip, answered), big(f, f.world, f.a, sent))),
        ),
    )


def error_out(world: World, f: Family, told: Packet, known: Packet) -> None:
    same_but_inner_checksum(f, send(world, "A", told).packet, out("A", known))


def error_in(world: World, f: Family, told: Packet, known: Packet) -> None:
    same_but_inner_checksum(f, send(world, "net", told).packet, into("A", known))


def fragmented(f: Family) -> Case:
    first, second = f.fragments(f.world, f.host, UDP(sport=5000, dport=30080) / Raw(b"d" * 60))
    whole = f.udp(f.world, f.a, 5000, BIND, size=0) / Raw(b"d" * 60)
    one, two = f.fragments(f.world, f.a, whole[UDP])
    for each in (one, two):
        if f.version == 4:
            each.ttl = 63
        else:
            each.hlim = 63
    return Case(
        f"{f.name} fragments for a frontend",
        (
            serve(f.host, 30080, f.a),
            Send("net", first, into("A", one), NEW),
            Send("net", second, into("A", two)),
        ),
    )


UNSUMMED = Case(
    "v4 a datagram without checksum",
    (
        serve(V4.host, 30080, V4.a),
        Send(
            "net",
            no_checksum(V4.udp(V4.world, V4.host, 5000, 30080)),
            into("A", no_checksum(V4.udp(V4.world, V4.a, 5000, BIND, ttl=63))),
            NEW,
        ),
    ),
)

CASES = [
    case
    for f in FAMILIES
    for make in (both_ways, policy, node_itself, backends, refusal, ranges, errors)
    for case in make(f)
] + [*map(fragmented, FAMILIES), UNSUMMED]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_services(shared_world: World, case: Case) -> None:
    play(shared_world, case)


def spread(world: World, affinity_s: int) -> dict[str, int]:
    """Connections of one client that each pod got."""
    serve(V4.host, 30080, V4.a, V4.b, affinity_s=affinity_s).what(world)
    found = {"A": 0, "B": 0}
    for port in range(1000, 1060):
        got = send(world, "net", V4.tcp(V4.world, V4.host, "S", port, 30080)).packet
        found[next(name for name, pod in PODS.items() if got[:6] == mac(pod.mac))] += 1
    return found


def test_backends_share_and_affinity_keeps(shared_world: World) -> None:
    shared_world.reset()
    assert min(spread(shared_world, 0).values()) > 5
    shared_world.reset()
    assert sorted(spread(shared_world, 60).values()) == [0, 60]
    (known,) = shared_world.lb[LB_AFFINITY.name].to_dict().values()
    assert known.port == BIND
