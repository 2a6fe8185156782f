"""Connections: their life, and verdicts that are taken again."""

import time

import pytest
from msgspec.structs import replace

from cirri.layout import CtFlag, CtKey, DropReason, EndpointFlag, PolicyDirection
from cirri.testing.datapath import EPOCH, R_IDENTITY, A, B, Entry, World
from cirri.testing.packets import (
    AWAY,
    EXPIRE,
    FAMILIES,
    LAST_HOP,
    RAISE,
    STACK,
    Case,
    Do,
    Family,
    Send,
    change,
    connections,
    expect,
    only,
    play,
)

IN, OUT = PolicyDirection.INGRESS, PolicyDirection.EGRESS
DENY_IN, DENY_OUT = EndpointFlag.ENFORCE_INGRESS, EndpointFlag.ENFORCE_EGRESS
DENY_BOTH = DENY_IN | DENY_OUT
NONE_IN, NONE_OUT = "ingress POLICY match=0 rule=0", "egress POLICY match=0 rule=0"
SECOND = 1_000_000_000
HOUR = 3600


def lives(seconds: int, flags: CtFlag | int) -> Do:
    """The one connection would be forgotten after so long, and this is known of it."""

    def check(world: World) -> None:
        _, value = only(world)
        left = (value.expires - time.clock_gettime_ns(time.CLOCK_MONOTONIC)) / SECOND
        assert seconds - 2 < left <= seconds
        assert CtFlag(value.flags) & ~CtFlag.FROM_HIGH == flags

    return Do(check)


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
                Send("B", f.tcp(b, a, "FA", 80, 40000), "A", ("closed packets=2", "closed packets=2 back")),
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
                Send("B", f.tcp(b, a, "RA", 80, 40000), "A", ("closed packets=0", "closed packets=1 back")),
                lives(10, CtFlag.SEEN_REPLY | CtFlag.RESET),
                Send("B", f.tcp(b, a, "R", 80, 40000), "A"),
            ),
        ),
        Case(
            "SYN opens again what is closed",
            (
                Send("A", f.tcp(a, b, "S"), "B", new),
                Send("A", f.tcp(a, b, "R"), "B", ("closed packets=1",)),
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
                Send("B", f.tcp(b, a, "PA", 80, 40000), DropReason.POLICY, (NONE_OUT,)),
                Send("A", f.tcp(a, b, "PA"), DropReason.POLICY, (NONE_OUT,)),
                connections(1),
            ),
            shut,
            (port,),
        ),
        Case(
            "rule removed: only who opened it keeps it from being forgotten",
            (
                Send("A", f.udp(a, b, 123, 123), "B", ("egress allow match=1 rule=1", "new")),
                change({"A": DENY_OUT}),
                Do(lambda w: w.live_on(5)),
                Send("B", f.udp(b, a, 123, 123), DropReason.POLICY, (NONE_OUT,)),
                lives(5, 0),
                Send("A", f.udp(a, b, 123, 123), DropReason.POLICY, (NONE_OUT,)),
                lives(60, 0),
                EXPIRE,
                Send("B", f.udp(b, a, 123, 123), "A", new),
                Send("A", f.udp(a, b, 123, 123), "B"),
            ),
            {"A": DENY_OUT},
            (Entry("A", OUT, B.identity, rule=1),),
        ),
        Case(
            "rule removed: an answer is cut",
            (
                first,
                change(shut),
                Send("B", f.tcp(b, a, "SA", 80, 40000), DropReason.POLICY, (NONE_OUT,)),
                Send("B", f.tcp(b, a, "PA", 80, 40000), DropReason.POLICY, (NONE_OUT,)),
                connections(1),
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
        assert value.forward == (packets[0], packets[0] * size)
        assert value.reply == (packets[1], packets[1] * size)
        assert (value.source_identity, value.destination_identity) == (A.identity, B.identity)

    return Do(check)


CASES = [case for f in FAMILIES for case in rows(f)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conntrack(shared_world: World, case: Case) -> None:
    play(shared_world, case)


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
@pytest.mark.parametrize("over", ["closed", "expired"])
@pytest.mark.parametrize("opener", "AB")
def test_nothing_of_the_connection_before_stays(
    shared_world: World, opener: str, over: str, f: Family
) -> None:
    """The new one is written over it; but what no event told yet is told with the new one's."""
    ways = {
        "A": Send("A", f.tcp(f.a, f.b, "S"), "B", ("new",)),
        "B": Send("B", f.tcp(f.b, f.a, "S", 80, 40000), "A", ("new",)),
    }
    ends = (
        Send("A", f.tcp(f.a, f.b, "R"), "B", ("closed packets=2", "closed packets=1 back"))
        if over == "closed"
        else EXPIRE
    )
    talk = (
        Send("A", f.tcp(f.a, f.b, "S"), "B", ("egress allow match=2 rule=10", "new")),
        Send("B", f.tcp(f.b, f.a, "SA", 80, 40000), "A"),
        Send("A", f.tcp(f.a, f.b, "A"), "B"),
    )
    rule = (Entry("A", OUT, B.identity, 6, 80, 16, rule=10),)
    play(shared_world, Case("", (*talk, ends, change({}), ways[opener]), {}, rule))
    key, value = only(shared_world)
    shared_world.ct.clear()
    expect(shared_world, ways[opener])
    fresh, first = only(shared_world)
    nothing = ("expires", "reply_untold", "forward_told", "reply_told", "forward_packets", "forward_bytes")
    rest = dict.fromkeys(nothing, 0)
    assert (key, replace(value, **rest)) == (fresh, replace(first, **rest))
