"""Masquerading: what pods send out of the cluster leaves under the node's address, and what answers it."""

import time
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from msgspec.structs import replace
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from cirri.layout import (
    NAT_PORT_FIRST,
    CtFlag,
    DropReason,
    IpcacheKey,
    NatDirection,
    NatKey,
    NatValue,
    RuntimeFlag,
    address16,
)
from cirri.testing.datapath import HOST4, HOST6, PODS, TC_OK, World
from cirri.testing.packets import (
    FAMILIES,
    STACK,
    V4,
    Case,
    Do,
    Family,
    Send,
    frame,
    play,
    send,
)

NEW = ("new",)
KEPT, OTHER = 50000, 40000
"""A port that NAT may keep, and one that it may not."""
TUNNEL = 8472
REST_S = 60
"""Of the port of a closed connection."""
M64 = (1 << 64) - 1


def masquerade(world: World) -> None:
    world.runtime.put(
        0,
        replace(
            world.runtime[0],
            flags=world.runtime[0].flags | RuntimeFlag.MASQUERADE4 | RuntimeFlag.MASQUERADE6,
            nat4=address16(HOST4),
            nat6=address16(HOST6),
        ),
    )


ON = Do(masquerade)


def leaves(packet: Packet, as_: Packet) -> Do:
    """The stack forwards *packet* to the uplink, and it leaves as the other, untold and uncounted."""

    def do(world: World) -> None:
        result = send(world, "through", packet)
        assert (result.action, result.events, result.metrics) == (TC_OK, [], {})
        assert result.packet == frame("through", as_)

    return Do(do)


def routed(f: Family, packet: Packet) -> Packet:
    """*packet* with a hop less to go."""
    fresh = packet.copy()
    if f.version == 4:
        fresh.ttl -= 1
    else:
        fresh.hlim -= 1
    return fresh


def goes(f: Family, packet: Packet, as_: Packet, events: tuple[str, ...] = ()) -> Send:
    """Pod A sends *packet*, which leaves at once, past the stack, as the other."""
    frame_ = Ether(src=PODS["A"].mac, dst=PODS["A"].node_mac) / routed(f, as_)
    return Send("A", packet, bytes(frame_), events)


def into(pod: str, packet: Packet) -> bytes:
    return bytes(Ether(src=PODS[pod].node_mac, dst=PODS[pod].mac) / packet)


def back(world: World) -> dict[int, NatValue]:
    """Entries by port of ours."""
    return {k.local_port: v for k, v in world.nat.to_dict().items() if k.direction == NatDirection.BACK}


def candidates(f: Family, source: str, port: int, far_port: int, count: int = 32) -> list[int]:
    """The ports that a connection to the world tries, in order: nat_hash and nat_candidate once more."""

    def swapped(number: int) -> int:
        return int.from_bytes(number.to_bytes(2, "big"), "little")

    def halves(address: str) -> tuple[int, int]:
        raw = address16(address)
        return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")

    found = swapped(port) << 32 | swapped(far_port)
    found = ((found ^ halves(source)[0]) * 0x9E3779B97F4A7C15) & M64
    for half in (halves(source)[1], *halves(f.world)):
        found = ((found ^ found >> 29 ^ half) * 0x9E3779B97F4A7C15) & M64
    found ^= found >> 32
    step = (found >> 40) & 0xFFFFFFFF | 1
    ports = [NAT_PORT_FIRST + ((found + i * step) & 16383) for i in range(1, count)]
    return [NAT_PORT_FIRST + (port & 16383), *ports]


CLOSED = CtFlag.FIN_FORWARD | CtFlag.FIN_REPLY


def occupied(
    f: Family, ports: list[int], *, left_ms: int = 60_000, closed_ms: int = -1, answered_ms: int = -1
) -> Do:
    """Pod B has TCP connections to port 80 of the world on these, closed *closed_ms* ago, or exchanges with
    its port 53 over UDP, the last one *answered_ms* ago."""

    def do(world: World) -> None:
        left = 1000 * REST_S - closed_ms if closed_ms >= 0 else left_ms
        flags = CLOSED if closed_ms >= 0 else CtFlag(0)
        if answered_ms >= 0:
            left, flags = 60_000 - answered_ms, CtFlag.SEEN_REPLY
        expires = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + left * 10**6
        protocol, far = (17, 53) if answered_ms >= 0 else (6, 80)
        for port in ports:
            key = NatKey(
                local=address16(f.host), remote=address16(f.world), local_port=port, remote_port=far,
                protocol=protocol, direction=NatDirection.BACK,
            )  # fmt: skip
            world.nat.put(key, NatValue(address=address16(f.b), port=1, expires=expires, flags=flags))

    return Do(do)


def there_and_back(f: Family) -> Iterator[Case]:
    for what, port in (("kept", KEPT), ("another", OTHER)):
        ours = candidates(f, f.a, port, 80, 1)[0]
        assert (ours == port) is (what == "kept")
        yield Case(
            f"{f.name} nat TCP, {what} port",
            (
                ON,
                goes(f, f.tcp(f.a, f.world, "S", port, 80), f.tcp(f.host, f.world, "S", ours, 80), NEW),
                Send("net", f.tcp(f.world, f.host, "SA", 80, ours),
                     into("A", f.tcp(f.world, f.a, "SA", 80, port, ttl=63))),
                goes(f, f.tcp(f.a, f.world, "A", port, 80), f.tcp(f.host, f.world, "A", ours, 80)),
                leaves(f.tcp(f.a, f.world, "A", port, 80), f.tcp(f.host, f.world, "A", ours, 80)),
                Send("net", f.tcp(f.cidr, f.host, "SA", 80, ours), STACK),
                Send("net", f.tcp(f.world, f.host, "SA", 81, ours), STACK),
            ),
        )  # fmt: skip
    ours = candidates(f, f.a, 5000, 53, 1)[0]
    yield Case(
        f"{f.name} nat UDP",
        (
            ON,
            goes(f, f.udp(f.a, f.world), f.udp(f.host, f.world, ours, 53), NEW),
            Send("net", f.udp(f.world, f.host, 53, ours), into("A", f.udp(f.world, f.a, 53, 5000, ttl=63))),
        ),
    )
    yield Case(
        f"{f.name} nat echo",
        (
            ON,
            goes(f, f.ping(f.a, f.world), f.ping(f.host, f.world, NAT_PORT_FIRST + 7), NEW),
            Do(lambda w: echoed(w, f)),
        ),
    )
    yield Case(
        f"{f.name} nat SCTP keeps its port",
        (
            ON,
            goes(f, f.sctp(f.a, f.world), f.sctp(f.host, f.world), NEW),
        ),
    )
    yield Case(
        f"{f.name} nat SCTP, taken",
        (
            ON,
            leaves(f.sctp(f.a, f.world), f.sctp(f.host, f.world)),
            Send("through", f.sctp(f.b, f.world), DropReason.NAT_NO_MAPPING),
        ),
    )


def echoed(world: World, f: Family) -> None:
    (ours,) = back(world)
    assert ours >= NAT_PORT_FIRST
    leaves(f.ping(f.a, f.world), f.ping(f.host, f.world, ours)).what(world)
    got = send(world, "net", f.pong(f.world, f.host, ours)).packet
    wanted = f.pong(f.world, f.a)
    if f.version == 4:
        wanted.ttl = 63
    else:
        wanted.hlim = 63
    assert got == into("A", wanted)
    result = send(world, "net", f.ping(f.world, f.host, ours))  # one that asks the node
    assert result.action == TC_OK
    assert result.packet == frame("net", f.ping(f.world, f.host, ours))


def stays(f: Family) -> Iterator[Case]:
    """What keeps its source."""
    to_world = f.tcp(f.a, f.world, "S", OTHER, 80)
    yield Case(f"{f.name} nat off", (Send("A", to_world, STACK, NEW), leaves(to_world, to_world)))

    def listed(world: World) -> None:
        network = ip_network(f"{f.world}/{24 if f.version == 4 else 64}", strict=False)
        world.masquerade_not.put(IpcacheKey.of(network), 1)

    yield Case(
        f"{f.name} nat not for listed prefixes",
        (ON, Do(listed), Send("A", to_world, STACK, NEW), leaves(to_world, to_world)),
    )
    for what, packet in (
        ("pods elsewhere", f.tcp(f.a, f.r, "S")),
        ("who is no pod", f.tcp(f.cidr, f.world, "S")),
        ("the node itself", f.tcp(f.host, f.world, "S")),
    ):
        yield Case(f"{f.name} nat not for {what}", (ON, leaves(packet, packet)))
    answer = f.tcp(f.a, f.world, "SA", 80, 40000)
    asked = f.udp(f.world, f.a, ttl=63)
    error = f.error(f.a, f.world, asked)
    yield Case(
        f"{f.name} nat not for answers to who knows the pod",
        (
            ON,
            Send("net", f.tcp(f.world, f.a, "S"), "A", NEW),
            Send("A", answer, STACK),
            leaves(answer, answer),
            Send("net", f.udp(f.world, f.a), "A", NEW),
            Send("A", error, STACK),
            leaves(error, error),
        ),
    )
    to_cidr = f.tcp(f.a, f.cidr, "S", KEPT, 80)
    yield Case(
        f"{f.name} nat for prefixes outside that policy knows",
        (ON, leaves(to_cidr, f.tcp(f.host, f.cidr, "S", KEPT, 80))),
    )
    yield Case(
        f"{f.name} nat of the node's own, with nothing to see",
        (ON, Send("node", f.tcp(f.host, f.world, "S", KEPT, 80), STACK),
         Send("net", f.tcp(f.world, f.host, "SA", 80, KEPT), STACK)),
    )  # fmt: skip


def ports(f: Family) -> Iterator[Case]:
    """Which port a connection gets."""
    first = candidates(f, f.a, KEPT, 80)

    def free(world: World) -> None:
        for key in [k for k in world.nat.to_dict() if k.local_port == first[3]]:
            world.nat.delete(key)

    second = candidates(f, f.b, KEPT, 80)
    syn = f.tcp(f.a, f.world, "S", KEPT, 80)

    def as_(port: int, flags: str = "S") -> Packet:
        return f.tcp(f.host, f.world, flags, port, 80)

    yield Case(
        f"{f.name} nat two pods with one port",
        (
            ON,
            leaves(syn, as_(KEPT)),
            leaves(f.tcp(f.b, f.world, "S", KEPT, 80), as_(second[1])),
            leaves(f.tcp(f.b, f.world, "A", KEPT, 80), as_(second[1], "A")),
            leaves(f.tcp(f.a, f.world, "A", KEPT, 80), as_(KEPT, "A")),
        ),
    )
    yield Case(f"{f.name} nat the last of 32", (ON, occupied(f, first[:31]), leaves(syn, as_(first[31]))))
    yield Case(
        f"{f.name} nat no port",
        (ON, occupied(f, first), Send("through", syn, DropReason.NAT_NO_MAPPING)),
    )
    for what, changes, wanted in (
        ("an expired one is free", (occupied(f, first[20:21], left_ms=-1000),), 20),
        ("a closed one will do", (occupied(f, first[9:10], closed_ms=10),), 9),
        ("a free one is better than a closed one", (occupied(f, first[:1], closed_ms=10), Do(free)), 3),
        (
            "one that rested is as good",
            (occupied(f, first[:1], closed_ms=61_000), Do(free)),
            0,
        ),
        (
            "the one that was closed first",
            (occupied(f, first[:9], closed_ms=10), occupied(f, first[2:3], closed_ms=500)),
            2,
        ),
    ):
        yield Case(
            f"{f.name} nat {what}",
            (ON, occupied(f, first), *changes, leaves(syn, as_(first[wanted]))),
        )

    tried = candidates(f, f.a, 5000, 53)
    for what, age_ms, to in (("have rested", 8000, 4), ("are in use", 1000, -1)):
        changes = (occupied(f, tried, answered_ms=1000), occupied(f, tried[4:5], answered_ms=age_ms))
        seen = leaves(f.udp(f.a, f.world), f.udp(f.host, f.world, tried[to], 53))
        drop = Send("through", f.udp(f.a, f.world), DropReason.NAT_NO_MAPPING)
        yield Case(f"{f.name} nat answered datagrams {what}", (ON, *changes, seen if to >= 0 else drop))

    def lost(direction: NatDirection) -> Do:
        def do(world: World) -> None:
            mine = [
                key
                for key, value in world.nat.to_dict().items()
                if key.direction == direction and address16(f.a) in (key.local, value.address)
            ]
            assert len(mine) == 1
            world.nat.delete(mine[0])

        return Do(do)

    for direction in NatDirection:
        yield Case(
            f"{f.name} nat {direction.name} was lost",
            (
                ON,
                occupied(f, first[:1]),
                leaves(syn, as_(first[1])),
                lost(direction),
                leaves(syn, as_(first[1])),
            ),
        )


def ends(f: Family) -> Iterator[Case]:
    """How long an entry lives."""
    out, answer = f.tcp(f.a, f.world, "A", KEPT, 80), f.tcp(f.world, f.host, "A", 80, KEPT)
    syn = f.tcp(f.a, f.world, "S", KEPT, 80)

    def lifetime(seconds: int) -> Do:
        def check(world: World) -> None:
            ((_, nat),) = world.nat.to_dict().items()
            ((_, known),) = world.ct.to_dict().items()
            assert CLOSED & ~nat.flags == 0 or abs(nat.expires - known.expires) < 10**9
            left = nat.expires - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            assert (seconds - 5) * 10**9 < left <= seconds * 10**9

        return Do(check)

    def both(packet: Packet, as_: Packet, events: tuple[str, ...] = ()) -> tuple[Send | Do, ...]:
        return (goes(f, packet, as_, events), leaves(packet, as_))

    inside = into("A", f.tcp(f.world, f.a, "A", 80, KEPT, ttl=63))
    yield Case(
        f"{f.name} nat lives as long as conntrack says",
        (
            ON,
            *both(syn, f.tcp(f.host, f.world, "S", KEPT, 80), NEW),
            lifetime(60),
            Send("net", answer, inside),
            *both(out, f.tcp(f.host, f.world, "A", KEPT, 80)),
            lifetime(21600),
            *both(f.tcp(f.a, f.world, "FA", KEPT, 80), f.tcp(f.host, f.world, "FA", KEPT, 80)),
            Send("net", f.tcp(f.world, f.host, "FA", 80, KEPT),
                 into("A", f.tcp(f.world, f.a, "FA", 80, KEPT, ttl=63)),
                 ("closed packets=2", "closed packets=2 back")),
            lifetime(REST_S),
            *both(syn, f.tcp(f.host, f.world, "S", KEPT, 80), NEW),
            lifetime(60),
        ),
    )  # fmt: skip

    def expire(world: World) -> None:
        for key, value in world.nat.to_dict().items():
            world.nat.put(key, replace(value, expires=1))

    yield Case(
        f"{f.name} nat what expired is the stack's",
        (ON, leaves(syn, f.tcp(f.host, f.world, "S", KEPT, 80)), Do(expire), Send("net", answer, STACK)),
    )

    def established(world: World) -> None:
        for key, value in world.nat.to_dict().items():
            world.nat.put(key, replace(value, expires=1, flags=CtFlag.SEEN_REPLY | CtFlag.ESTABLISHED))

    def young(world: World) -> None:
        ((_, nat),) = world.nat.to_dict().items()
        assert nat.expires - time.clock_gettime_ns(time.CLOCK_MONOTONIC) < 61 * 10**9

    yield Case(
        f"{f.name} nat what expired begins anew",
        (
            ON,
            leaves(syn, f.tcp(f.host, f.world, "S", KEPT, 80)),
            Do(established),
            leaves(out, f.tcp(f.host, f.world, "A", KEPT, 80)),
            Do(young),
        ),
    )

    def gone(world: World) -> None:
        world.endpoints.delete(address16(f.a))
        world.raise_epoch()

    yield Case(
        f"{f.name} nat the pod is gone",
        (
            ON,
            leaves(syn, f.tcp(f.host, f.world, "S", KEPT, 80)),
            Do(gone),
            Send("net", answer, DropReason.UNROUTABLE),
        ),
    )


def errors(f: Family) -> Iterator[Case]:
    """ICMP errors are about what their receiver knows."""
    ours = candidates(f, f.a, OTHER, 80, 1)[0]
    sent, seen = f.tcp(f.a, f.world, "S", OTHER, 80), f.tcp(f.host, f.world, "S", ours, 80)
    routed = f.error(f.world, f.a, sent)
    if f.version == 4:
        routed.ttl = 63
    else:
        routed.hlim = 63
    yield Case(
        f"{f.name} nat error from outside",
        (
            ON,
            goes(f, sent, seen, NEW),
            Send("net", f.error(f.world, f.host, seen), into("A", routed)),
            Send("net", f.error(f.world, f.host, f.tcp(f.host, f.world, "S", ours + 1, 80)), STACK),
        ),
    )
    answer, inside = f.tcp(f.world, f.host, "SA", 80, ours), f.tcp(f.world, f.a, "SA", 80, OTHER, ttl=63)
    yield Case(
        f"{f.name} nat error of the pod",
        (
            ON,
            goes(f, sent, seen, NEW),
            Send("net", answer, into("A", inside)),
            Send("A", f.error(f.a, f.world, inside), STACK),
            leaves(
                f.error(f.a, f.world, inside),
                f.error(f.host, f.world, f.tcp(f.world, f.host, "SA", 80, ours, ttl=63)),
            ),
        ),
    )
    yield Case(
        f"{f.name} nat error of the pod about nothing",
        (ON, Send("through", f.error(f.a, f.world, inside), DropReason.INVALID)),
    )


def fragmented(f: Family) -> Case:
    def pieces(source: str, destination: str, *ports: int, ttl: int = 64) -> tuple[Packet, Packet]:
        whole = f.udp(source, destination, *ports, size=0) / Raw(b"d" * 60)
        both = f.fragments(source, destination, whole[UDP])
        for each in both:
            if f.version == 4:
                each.ttl = ttl
            else:
                each.hlim = ttl
        return both

    ours = candidates(f, f.a, 5000, 53, 1)[0]
    (out1, out2), (seen1, seen2) = pieces(f.a, f.world, 5000, 53), pieces(f.host, f.world, ours, 53)
    (back1, back2), (got1, got2) = pieces(f.world, f.host, 53, ours), pieces(f.world, f.a, 53, 5000, ttl=63)
    return Case(
        f"{f.name} nat fragments",
        (
            ON,
            Send("A", out1, STACK, NEW),
            Send("A", out2, STACK),
            leaves(out1, seen1),
            leaves(out2, seen2),
            Send("net", back1, into("A", got1)),
            Send("net", back2, into("A", got2)),
            Send("net", pieces(f.cidr, f.host, 53, ours)[1], STACK),
        ),
    )


def firewall(f: Family) -> Case:
    """The node's policy has no say in what is its pods'."""
    ours = candidates(f, f.a, OTHER, 80, 1)[0]
    return Case(
        f"{f.name} nat and the host firewall",
        (
            ON,
            goes(f, f.tcp(f.a, f.world, "S", OTHER, 80), f.tcp(f.host, f.world, "S", ours, 80), NEW),
            Send("net", f.tcp(f.world, f.host, "SA", 80, ours),
                 into("A", f.tcp(f.world, f.a, "SA", 80, OTHER, ttl=63))),
            Send("net", f.tcp(f.world, f.host, "SA", 81, ours), DropReason.POLICY,
                 ("ingress POLICY match=0 rule=0",)),
        ),
        {"H": 3},
    )  # fmt: skip


def tunnels(world: World) -> None:
    config = world.runtime[0]
    world.runtime.put(0, replace(config, tunnel_ifindex=world.uplink, tunnel_port=TUNNEL))


def disguised(f: Family) -> Iterator[Case]:
    """A pod that sends VXLAN must not look like its node."""
    packet = f.udp(f.a, f.world, KEPT, TUNNEL)
    yield Case(
        f"{f.name} nat to a tunnel's port",
        (ON, Do(tunnels), Send("through", packet, DropReason.UNKNOWN_SENDER)),
    )
    yield Case(
        f"{f.name} nat to that port without tunnels",
        (ON, leaves(packet, f.udp(f.host, f.world, KEPT, TUNNEL))),
    )


def past_the_stack(f: Family) -> Iterator[Case]:
    """What is nothing for a redirect is the stack's, unchanged, and to_network sees it again."""
    for what, packet in (
        ("its last hop", f.udp(f.a, f.world, ttl=1)),
        ("too long for the uplink", f.udp(f.a, f.world, 1, 2, size=1500)),
    ):
        yield Case(f"{f.name} nat {what}", (ON, Send("A", packet, STACK, NEW)))
    packet = f.tcp(f.a, f.world, "S", KEPT, 80)
    yield Case(
        f"{f.name} nat no port for a pod",
        (ON, occupied(f, candidates(f, f.a, KEPT, 80)), Send("A", packet, DropReason.NAT_NO_MAPPING)),
    )
    tunnel = f.udp(f.a, f.world, KEPT, TUNNEL)
    yield Case(
        f"{f.name} nat of a pod to a tunnel's port",
        (ON, Do(tunnels), Send("A", tunnel, DropReason.UNKNOWN_SENDER)),
    )


CASES = [
    case
    for f in FAMILIES
    for make in (there_and_back, stays, ports, ends, errors, disguised, past_the_stack)
    for case in make(f)
] + [case for f in FAMILIES for case in (fragmented(f), firewall(f))]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nat(shared_world: World, case: Case) -> None:
    play(shared_world, case)


def test_ports_are_spread(shared_world: World) -> None:
    """Neighbouring connections do not try the same ports, pods with the same ports neither."""
    tried = [candidates(V4, pod, port, 80, 2) for pod in (V4.a, V4.b) for port in range(30000, 31000)]
    assert len({first for first, _ in tried}) == 1000
    assert len({second for _, second in tried}) > 1850


def test_many_connections_to_one_server(shared_world: World) -> None:
    """Each of many connections to one server finds a port of its own."""
    shared_world.reset()
    masquerade(shared_world)
    for port in range(20000, 20100):
        assert send(shared_world, "through", V4.tcp(V4.a, V4.world, "S", port, 80)).action == TC_OK
    assert len(back(shared_world)) == 100
