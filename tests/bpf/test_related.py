"""What belongs to a connection: echoes and their replies, ICMP errors about it, fragments."""

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest
from scapy.packet import Raw

from cirri.layout import DropReason, EndpointFlag, PolicyDirection
from cirri.testing.datapath import R_IDENTITY, A, B, Entry, World
from cirri.testing.packets import (
    AWAY,
    EXPIRE,
    FAMILIES,
    RAISE,
    V4,
    V6,
    Case,
    Family,
    Send,
    change,
    connections,
    play,
)

IN, OUT = PolicyDirection.INGRESS, PolicyDirection.EGRESS
DENY_IN, DENY_OUT = EndpointFlag.ENFORCE_INGRESS, EndpointFlag.ENFORCE_EGRESS
DENY_BOTH = DENY_IN | DENY_OUT
NONE_IN, NONE_OUT = "ingress POLICY match=0 rule=0", "egress POLICY match=0 rule=0"


def rows(f: Family) -> list[Case]:
    """Rows that hold for either family."""
    a, b = f.a, f.b
    query, answer = f.udp(a, b), f.udp(b, a, 53, 5000)
    unreachable = f.error(b, a, query)
    small, rest = f.fragments(a, b, UDP(sport=5000, dport=53) / Raw(bytes(range(40))))
    echo = ICMP(id=7) if f.version == 4 else ICMPv6EchoRequest(id=7, data=bytes(40))
    ping_small, ping_rest = f.fragments(a, b, echo / Raw(bytes(40)) if f.version == 4 else echo)
    tcp_small, tcp_rest = f.fragments(a, b, TCP(sport=40000, dport=80, flags="A") / Raw(bytes(40)))
    new = ("new",)
    cases = [
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
    ]
    return [Case(f"{f.name} {c.id}", c.steps, c.flags, c.entries) for c in cases]


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
def test_related(shared_world: World, case: Case) -> None:
    play(shared_world, case)
