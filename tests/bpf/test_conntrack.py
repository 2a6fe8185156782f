"""Connections: their life, what belongs to them, and verdicts that are taken again."""

import time
from collections.abc import Mapping

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest
from scapy.packet import Raw

from cirri.layout import CtFlag, CtKey, CtValue, DropReason, EndpointFlag, PolicyDirection
from cirri.testing.datapath import EPOCH, R_IDENTITY, A, B, Entry, World
from cirri.testing.packets import AWAY, FAMILIES, LAST_HOP, STACK, V4, V6, Case, Do, Family, Send, play

IN, OUT = PolicyDirection.INGRESS, PolicyDirection.EGRESS
DENY_IN, DENY_OUT = EndpointFlag.ENFORCE_INGRESS, EndpointFlag.ENFORCE_EGRESS
DENY_BOTH = DENY_IN | DENY_OUT
NONE_IN, NONE_OUT = "ingress POLICY match=0 rule=0", "egress POLICY match=0 rule=0"
SECOND = 1_000_000_000
HOUR = 3600


def only(world: World) -> tuple[CtKey, CtValue]:
    """The one connection there is."""
    ((key, value),) = world.ct.to_dict().items()
    return key, value


def connections(count: int) -> Do:
    def check(world: World) -> None:
        assert len(world.ct.to_dict()) == count

    return Do(check)


def lives(seconds: int, flags: CtFlag | int) -> Do:
    """The one connection would be forgotten after so long, and this is known of it."""

    def check(world: World) -> None:
        _, value = only(world)
        left = (value.expires - time.clock_gettime_ns(time.CLOCK_MONOTONIC)) / SECOND
        assert seconds - 2 < left <= seconds
        assert CtFlag(value.flags) & ~CtFlag.FROM_HIGH == flags

    return Do(check)


def change(flags: Mapping[str, int], entries: tuple[Entry, ...] = ()) -> Do:
    """Another policy is in force from here."""

    def do(world: World) -> None:
        world.policy.clear()
        world.enforce(flags, entries)
        world.raise_epoch()

    return Do(do)


EXPIRE = Do(World.expire)
RAISE = Do(World.raise_epoch)


def rows(f: Family) -> list[Case]:
    """Rows that hold for either family."""
    a, b = f.a, f.b
    there = lambda flags: Send("A", f.tcp(a, b, flags), "B")  # noqa: E731 - rows stay one line
    back = lambda flags: Send("B", f.tcp(b, a, flags, 80, 40000), "A")  # noqa: E731
    port = Entry("A", OUT, B.identity, 6, 80, 16, rule=10)
    opened = ("egress allow match=2 rule=10", "new")
    first = Send("A", f.tcp(a, b, "S"), "B", opened)
    shut = {"A": DENY_BOTH, "B": DENY_OUT}
    query, answer = f.udp(a, b), f.udp(b, a, 53, 5000)
    unreachable = f.error(b, a, query)
    small, rest = f.fragments(a, b, UDP(sport=5000, dport=53) / Raw(bytes(range(40))))
    echo = ICMP(id=7) if f.version == 4 else ICMPv6EchoRequest(id=7, data=bytes(40))
    ping_small, ping_rest = f.fragments(a, b, echo / Raw(bytes(40)) if f.version == 4 else echo)
    tcp_small, tcp_rest = f.fragments(a, b, TCP(sport=40000, dport=80, flags="A") / Raw(bytes(40)))
    new = ("new",)
    cases = [
        Case("a new connection is not closed", (Send("A", f.tcp(a, b, "S"), "B", new), lives(60, 0))),
        Case(
            "handshake",
            (
                Send("A", f.tcp(a, b, "S"), "B", new),
                back("SA"),
                lives(60, CtFlag.SEEN_REPLY),
                there("A"),
                lives(6 * HOUR, CtFlag.SEEN_REPLY | CtFlag.ESTABLISHED),
            ),
        ),
        Case(
            "end by FIN from both",
            (
                Send("A", f.tcp(a, b, "S"), "B", new),
                back("SA"),
                there("A"),
                there("FA"),
                lives(6 * HOUR, CtFlag.SEEN_REPLY | CtFlag.ESTABLISHED | CtFlag.FIN_FORWARD),
                Send("B", f.tcp(b, a, "FA", 80, 40000), "A", ("closed packets=5",)),
                there("A"),
                lives(10, CtFlag.SEEN_REPLY | CtFlag.ESTABLISHED | CtFlag.FIN_FORWARD | CtFlag.FIN_REPLY),
                there("FA"),
                back("R"),
            ),
        ),
        Case(
            "end by RST, told once",
            (
                Send("A", f.tcp(a, b, "S"), "B", new),
                Send("B", f.tcp(b, a, "RA", 80, 40000), "A", ("closed packets=2",)),
                lives(10, CtFlag.SEEN_REPLY | CtFlag.RESET),
                Send("B", f.tcp(b, a, "R", 80, 40000), "A"),
            ),
        ),
        Case(
            "SYN opens again what is closed",
            (
                Send("A", f.tcp(a, b, "S"), "B", new),
                Send("A", f.tcp(a, b, "R"), "B", ("closed packets=2",)),
                Send("A", f.tcp(a, b, "S"), "B", new),
                lives(60, 0),
            ),
        ),
        Case("SYN again", (Send("A", f.tcp(a, b, "S"), "B", new), there("S"), connections(1))),
        Case(
            "SYN the other way is no reply",
            (
                first,
                back("SA"),
                there("A"),
                Send("B", f.tcp(b, a, "S", 80, 40000), DropReason.POLICY, (NONE_OUT,)),
            ),
            shut,
            (port,),
        ),
        Case("RST alone leaves nothing", (Send("A", f.tcp(a, b, "R"), "B"), connections(0))),
        Case(
            "segment of an unknown connection",
            (
                Send("A", f.tcp(a, b, "A"), "B", opened),
                Send("B", f.tcp(b, a, "A", 81, 1), DropReason.POLICY, (NONE_OUT,)),
            ),
            shut,
            (port,),
        ),
        Case("UDP", (Send("A", query, "B", new), Send("B", answer, "A"), lives(60, CtFlag.SEEN_REPLY))),
        Case(
            "expired is new", (Send("A", query, "B", new), EXPIRE, Send("A", query, "B", new), connections(1))
        ),
        Case(
            "expired: the answer is nobody's",
            (
                Send("A", query, "B", ("egress allow match=1 rule=1", "new")),
                Send("B", answer, "A"),
                EXPIRE,
                Send("B", answer, DropReason.POLICY, (NONE_OUT,)),
            ),
            {"A": DENY_OUT, "B": DENY_OUT},
            (Entry("A", OUT, B.identity, rule=1),),
        ),
        Case(
            "rule removed: the next packet is cut",
            (
                first,
                back("SA"),
                change(shut),
                Send("A", f.tcp(a, b, "A"), DropReason.POLICY, (NONE_OUT,)),
                connections(0),
            ),
            shut,
            (port,),
        ),
        Case(
            "rule removed: an answer is cut",
            (
                first,
                change(shut),
                Send("B", f.tcp(b, a, "SA", 80, 40000), DropReason.POLICY, (NONE_OUT,)),
                connections(0),
            ),
            shut,
            (port,),
        ),
        Case(
            "rule removed: ingress cut",
            (
                Send("A", f.tcp(a, b, "S"), "B", new),
                change({"B": DENY_IN}),
                Send("A", f.tcp(a, b, "A"), DropReason.POLICY, (NONE_IN,)),
            ),
        ),
        Case(
            "deny added",
            (
                first,
                change(shut, (port, port._replace(rule=66, deny=True))),
                Send("A", f.tcp(a, b, "A"), DropReason.POLICY_DENY, ("egress POLICY_DENY match=2 rule=66",)),
            ),
            shut,
            (port,),
        ),
        Case(
            "something else changed: no word, no lookups after",
            (first, RAISE, back("SA"), epoch_is(EPOCH + 1), there("A"), connections(1)),
            shut,
            (port,),
        ),
        Case(
            "another rule allows it now",
            (first, change(shut, (port._replace(rule=12),)), there("A"), rule_is(12)),
            shut,
            (port,),
        ),
        Case(
            "from elsewhere: an answer is judged by the one who asked",
            (
                Send("A", f.tcp(a, f.r, "S"), AWAY, ("egress allow match=1 rule=1", "new")),
                RAISE,
                Send("net", f.tcp(f.r, a, "SA", 80, 40000), "A"),
                change({"A": DENY_BOTH}),
                Send("net", f.tcp(f.r, a, "A", 80, 40000), DropReason.POLICY, (NONE_OUT,)),
            ),
            {"A": DENY_BOTH},
            (Entry("A", OUT, R_IDENTITY, rule=1),),
        ),
        Case(
            "echo: who asks is told apart, with one identifier",
            (
                Send("A", f.ping(a, b), "B", ("egress allow match=1 rule=1", "new")),
                Send("B", f.ping(b, a), DropReason.POLICY, (NONE_OUT,)),
                Send("B", f.pong(b, a), "A"),
                connections(1),
            ),
            {"A": DENY_OUT, "B": DENY_OUT},
            (Entry("A", OUT, B.identity, rule=1),),
        ),
        Case(
            "echo: an identifier like the type",
            (
                Send("A", f.ping(a, b, f.echo), "B", ("egress allow match=1 rule=1", "new")),
                Send("B", f.ping(b, a, f.echo), DropReason.POLICY, (NONE_OUT,)),
                Send("B", f.pong(b, a, f.echo), "A"),
            ),
            {"A": DENY_OUT, "B": DENY_OUT},
            (Entry("A", OUT, B.identity, rule=1),),
        ),
        Case("echo reply nobody asked for leaves nothing", (Send("A", f.pong(a, b), "B"), connections(0))),
        Case(
            "echo cut by a change, at the reply",
            (
                Send("A", f.ping(a, b), "B", ("egress allow match=2 rule=1", "new")),
                RAISE,
                Send("B", f.pong(b, a), "A"),
                change({"A": DENY_OUT, "B": DENY_OUT}),
                Send("B", f.pong(b, a), DropReason.POLICY, (NONE_OUT,)),
            ),
            {"A": DENY_OUT, "B": DENY_OUT},
            (Entry("A", OUT, B.identity, f.icmp, f.echo, 16, rule=1),),
        ),
        Case(
            "error about a connection",
            (Send("A", query, "B", ("egress allow match=1 rule=1", "new")), Send("B", unreachable, "A")),
            {"A": DENY_BOTH, "B": DENY_OUT},
            (Entry("A", OUT, B.identity, rule=1),),
        ),
        Case(
            "error about an answer",
            (
                Send("A", query, "B", ("egress allow match=1 rule=1", "ingress allow match=5 rule=2", "new")),
                Send("A", f.error(a, b, answer), "B"),
            ),
            {"A": DENY_BOTH, "B": DENY_BOTH},
            (Entry("A", OUT, B.identity, rule=1), Entry("B", IN, A.identity, 17, rule=2)),
        ),
        Case(
            "error about an echo",
            (
                Send("A", f.ping(a, b), "B", ("egress allow match=1 rule=1", "new")),
                Send("B", f.error(b, a, f.ping(a, b)), "A"),
            ),
            {"A": DENY_OUT, "B": DENY_OUT},
            (Entry("A", OUT, B.identity, rule=1),),
        ),
        Case(
            "error from a router of the world",
            (
                Send("A", f.tcp(a, f.r, "S"), AWAY, ("egress allow match=1 rule=1", "new")),
                Send("net", f.error(f.world, a, f.tcp(a, f.r, "S")), "A"),
                Send(">A", f.error(f.host, a, f.tcp(a, f.r, "S")), "A"),
            ),
            {"A": DENY_BOTH},
            (Entry("A", OUT, R_IDENTITY, rule=1),),
        ),
        Case(
            "error about nothing known",
            (Send("B", unreachable, DropReason.POLICY, (NONE_IN,)),),
            {"A": DENY_IN},
        ),
        Case(
            "error about somebody else's connection",
            (
                Send("A", f.tcp(a, f.r, "S"), AWAY, new),
                Send("B", f.error(b, a, f.tcp(a, f.r, "S")), DropReason.POLICY, (NONE_OUT,)),
            ),
            {"B": DENY_OUT},
        ),
        Case(
            "error to one who did not send it",
            (
                Send("A", f.udp(a, f.r), AWAY, new),
                Send("net", f.error(f.world, b, f.udp(a, f.r)), DropReason.POLICY, (NONE_IN,)),
            ),
            {"B": DENY_IN},
        ),
        Case(
            "error about a forgotten connection",
            (
                Send("A", query, "B", ("egress allow match=1 rule=1", "new")),
                EXPIRE,
                Send("B", unreachable, DropReason.POLICY, (NONE_OUT,)),
            ),
            {"A": DENY_BOTH, "B": DENY_OUT},
            (Entry("A", OUT, B.identity, rule=1),),
        ),
        Case(
            "error about a connection not judged since the change",
            (
                Send("A", query, "B", ("egress allow match=1 rule=1", "new")),
                RAISE,
                Send("B", unreachable, DropReason.POLICY, (NONE_OUT,)),
                Send("A", query, "B"),
                Send("B", unreachable, "A"),
            ),
            {"A": DENY_OUT, "B": DENY_OUT},
            (Entry("A", OUT, B.identity, rule=1),),
        ),
        Case(
            "error cut short",
            (
                Send(
                    "B",
                    f.ip(b, a, **f.next(f.icmp)) / Raw(bytes([f.unreachable, 1]) + bytes(14)),
                    DropReason.POLICY,
                    (NONE_IN,),
                ),
            ),
            {"A": DENY_IN},
        ),
        Case("fragments", (Send("A", small, "B", new), Send("A", rest, "B"), connections(1))),
        Case("fragments of TCP", (Send("A", tcp_small, "B", new), Send("A", tcp_rest, "B"), connections(1))),
        Case(
            "fragments of an echo",
            (Send("A", ping_small, "B", new), Send("A", ping_rest, "B"), connections(1)),
        ),
        Case(
            "fragments in disorder",
            (Send("A", rest, DropReason.FRAGMENT_NOT_FOUND), Send("A", small, "B", new)),
        ),
        Case(
            "fragments: ports of another's datagram",
            (Send("B", small, DropReason.INVALID_SOURCE_IP), Send("A", rest, DropReason.FRAGMENT_NOT_FOUND)),
        ),
        Case(
            "fragments judged by the first one's ports",
            (
                Send("A", small, DropReason.POLICY, (NONE_OUT,)),
                Send("A", rest, DropReason.POLICY, (NONE_OUT,)),
            ),
            {"A": DENY_OUT},
            (Entry("A", OUT, B.identity, 17, 54, 16, rule=1),),
        ),
        Case(
            "fragments arriving",
            tuple(
                Send("net", p, "B", e)
                for p, e in zip(
                    f.fragments(f.r, b, UDP(sport=5000, dport=53) / Raw(bytes(40))), (new, ()), strict=True
                )
            ),
        ),
        Case(
            "counters",
            (
                Send("A", f.tcp(a, b, "S"), "B", new),
                back("SA"),
                there("A"),
                counts((2, 1), 54 + (20 if f.version == 6 else 0)),
            ),
        ),
        Case("known, last hop", (Send("A", query, "B", new), Send("A", f.udp(a, b, ttl=1), LAST_HOP))),
        Case(
            "from the stack, answered",
            (
                Send(">A", f.tcp(f.host, a, "S"), "A", new),
                Send("A", f.tcp(a, f.host, "SA", 80, 40000), STACK),
            ),
        ),
    ]
    return [Case(f"{f.name} {c.id}", c.steps, c.flags, c.entries) for c in cases]


def epoch_is(epoch: int) -> Do:
    def check(world: World) -> None:
        assert only(world)[1].epoch == epoch

    return Do(check)


def rule_is(rule: int) -> Do:
    def check(world: World) -> None:
        assert only(world)[1].egress_rule == rule

    return Do(check)


def counts(packets: tuple[int, int], size: int) -> Do:
    """Packets there and back, of so many bytes each."""

    def check(world: World) -> None:
        key, value = only(world)
        assert key == CtKey.of(key.low, key.low_port, key.high, key.high_port, 6)
        assert (value.forward_packets, value.reply_packets) == packets
        assert (value.forward_bytes, value.reply_bytes) == (packets[0] * size, packets[1] * size)
        assert (value.source_identity, value.destination_identity) == (A.identity, B.identity)

    return Do(check)


FRAG_NEEDED = IP(src=V4.world, dst=V4.a) / ICMP(type=3, code=4) / Raw(bytes(V4.tcp(V4.a, V4.r, "A"))[:28])
V4_ONLY = [
    Case("v4 fragmentation needed, always", (Send("net", FRAG_NEEDED, "A"), connections(0)), {"A": DENY_IN}),
    Case(
        "v4 timestamp and its reply",
        (
            Send(
                "A", IP(src=V4.a, dst=V4.b) / ICMP(type=13, id=9), "B", ("egress allow match=1 rule=1", "new")
            ),
            Send("B", IP(src=V4.b, dst=V4.a) / ICMP(type=14, id=9), "A"),
            Send("B", IP(src=V4.b, dst=V4.a) / ICMP(type=0, id=9), DropReason.POLICY, (NONE_OUT,)),
        ),
        {"A": DENY_OUT, "B": DENY_OUT},
        (Entry("A", OUT, B.identity, rule=1),),
    ),
    Case(
        "v4 an allowed echo opens nothing for other types",
        (
            Send("A", V4.ping(V4.a, V4.b, 9), "B", ("egress allow match=2 rule=1", "new")),
            Send("A", IP(src=V4.a, dst=V4.b) / ICMP(type=13, id=9), DropReason.POLICY, (NONE_OUT,)),
            Send("A", IP(src=V4.a, dst=V4.b) / ICMP(type=5), DropReason.POLICY, (NONE_OUT,)),
        ),
        {"A": DENY_OUT},
        (Entry("A", OUT, B.identity, 1, 8, 16, rule=1),),
    ),
    Case(
        "v4 and v6 are two connections",
        (
            Send("A", V4.udp(V4.a, V4.b), "B", ("new",)),
            Send("A", V6.udp(V6.a, V6.b), "B", ("new",)),
            connections(2),
        ),
    ),
]
CASES = [case for f in FAMILIES for case in rows(f)] + V4_ONLY


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conntrack(shared_world: World, case: Case) -> None:
    play(shared_world, case)
