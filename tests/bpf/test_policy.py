"""Who may talk to whom: both ends' policies, peers of every kind, and what observers are told.

Which of several entries decides: ``test_precedence.py``.
"""

import pytest

from cirri.layout import DropReason, EndpointFlag, PolicyDirection
from cirri.testing.datapath import R_IDENTITY, A, B, Entry, World
from cirri.testing.packets import AWAY, CIDR, FAMILIES, STACK, Case, Do, Family, Send, play

IN, OUT = PolicyDirection.INGRESS, PolicyDirection.EGRESS
DENY_IN, DENY_OUT = EndpointFlag.ENFORCE_INGRESS, EndpointFlag.ENFORCE_EGRESS
TCP = 6


def check_counter(entry: Entry, packets: int) -> Do:
    """The entry gave so many verdicts."""

    def check(world: World) -> None:
        assert world.policy[entry.key].packets == packets

    return Do(check)


def rows(f: Family) -> list[Case]:
    """Rows that hold for either family."""
    syn, echo = f.tcp(f.a, f.b, "S"), f.icmp
    port = Entry("A", OUT, B.identity, TCP, 80, 16, rule=10)
    deny = Entry("A", OUT, B.identity, TCP, 80, 16, rule=11, deny=True)
    allow_in = Entry("B", IN, A.identity, TCP, 80, 16, rule=20)
    ping, pong = f.ping(f.a, f.b), f.pong(f.b, f.a)
    none_in, none_out = "ingress POLICY match=0 rule=0", "egress POLICY match=0 rule=0"
    cases = [
        Case(
            "deny without default deny",
            (
                Send("A", syn, DropReason.POLICY_DENY, ("egress POLICY_DENY match=2 rule=11",)),
                Send("A", f.tcp(f.a, f.b, "S", 1, 81), "B", ("new",)),
            ),
            {"A": 0},
            (deny,),
        ),
        Case("no policy, nobody asked", (Send("A", syn, "B", ("new",)),)),
        Case(
            "both ends asked",
            (
                Send("A", syn, "B", ("egress allow match=2 rule=10", "ingress allow match=2 rule=20", "new")),
                Send("B", f.tcp(f.b, f.a, "SA", 80, 40000), "A"),
                Send("A", f.tcp(f.a, f.b, "A"), "B"),
                check_counter(port, 1),
                check_counter(allow_in, 1),
            ),
            {"A": DENY_OUT | DENY_IN, "B": DENY_IN | DENY_OUT},
            (port, allow_in),
        ),
        Case(
            "ingress denied",
            (
                Send("A", syn, DropReason.POLICY, (none_in,)),
                Send("A", f.ping(f.a, f.b), DropReason.POLICY, (none_in,)),
            ),
            {"B": DENY_IN},
        ),
        Case(
            "egress allowed, ingress denied",
            (Send("A", syn, DropReason.POLICY, ("egress allow match=2 rule=10", none_in)),),
            {"A": DENY_OUT, "B": DENY_IN},
            (port,),
        ),
        Case(
            "default deny before any policy",
            (Send("A", syn, DropReason.POLICY, (none_out,)),),
            {"A": DENY_OUT},
        ),
        Case(
            "to itself, exempt", (Send("A", f.tcp(f.a, f.a, "S"), "A", ("new",)),), {"A": DENY_OUT | DENY_IN}
        ),
        Case(
            "to a pod elsewhere: egress here",
            (
                Send("A", f.tcp(f.a, f.r, "S"), AWAY, ("egress allow match=1 rule=1", "new")),
                Send("net", f.tcp(f.r, f.a, "SA", 80, 40000), "A"),
            ),
            {"A": DENY_OUT | DENY_IN},
            (Entry("A", OUT, R_IDENTITY, rule=1),),
        ),
        Case(
            "from a pod elsewhere: ingress here",
            (
                Send("net", f.tcp(f.r, f.a, "S"), "A", ("ingress allow match=1 rule=1", "new")),
                Send("A", f.tcp(f.a, f.r, "SA", 80, 40000), AWAY),
            ),
            {"A": DENY_OUT | DENY_IN},
            (Entry("A", IN, R_IDENTITY, rule=1),),
        ),
        Case(
            "from a pod elsewhere, denied",
            (Send("net", f.tcp(f.r, f.a, "S"), DropReason.POLICY, (none_in,)),),
            {"A": DENY_IN},
        ),
        Case(
            "from the host",
            (
                Send(">A", f.tcp(f.host, f.a, "S"), "A", ("ingress allow match=1 rule=1", "new")),
                Send("A", f.tcp(f.a, f.host, "SA", 80, 40000), STACK),
            ),
            {"A": DENY_OUT | DENY_IN},
            (Entry("A", IN, 1, rule=1),),
        ),
        Case(
            "from the host, denied",
            (Send(">A", f.tcp(f.host, f.a, "S"), DropReason.POLICY, (none_in,)),),
            {"A": DENY_IN},
        ),
        Case(
            "the world by its identity",
            (
                Send("A", f.tcp(f.a, f.world, "S"), STACK, ("egress allow match=1 rule=1", "new")),
                Send("A", f.tcp(f.a, f.cidr, "S"), DropReason.POLICY, (none_out,)),
            ),
            {"A": DENY_OUT},
            (Entry("A", OUT, f.world_identity, rule=1),),
        ),
        Case(
            "a prefix by its identity",
            (
                Send("A", f.tcp(f.a, f.cidr, "S"), STACK, ("egress allow match=1 rule=1", "new")),
                Send("A", f.tcp(f.a, f.world, "S"), DropReason.POLICY, (none_out,)),
            ),
            {"A": DENY_OUT},
            (Entry("A", OUT, CIDR, rule=1),),
        ),
        Case(
            "ICMP by type",
            (
                Send("A", ping, "B", ("egress allow match=2 rule=9", "new")),
                Send("B", pong, "A"),
                Send("A", f.error(f.a, f.b, f.udp(f.b, f.a)), DropReason.POLICY, (none_out,)),
            ),
            {"A": DENY_OUT | DENY_IN, "B": DENY_OUT},
            (Entry("A", OUT, B.identity, echo, f.echo, 16, rule=9),),
        ),
        Case(
            "ICMP, reply asked as itself when nobody asked for it",
            (Send("A", f.pong(f.a, f.b), DropReason.POLICY, (none_out,)),),
            {"A": DENY_OUT},
            (Entry("A", OUT, B.identity, echo, f.echo, 16, rule=9),),
        ),
        Case(
            "SCTP by port",
            (Send("A", f.sctp(f.a, f.b), "B", ("egress allow match=2 rule=9", "new")),),
            {"A": DENY_OUT},
            (Entry("A", OUT, B.identity, 132, 9000, 16, rule=9),),
        ),
    ]
    return [Case(f"{f.name} {c.id}", c.steps, c.flags, c.entries) for c in cases]


CASES = [case for f in FAMILIES for case in rows(f)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_policy(shared_world: World, case: Case) -> None:
    play(shared_world, case)


def test_events_say_who_and_what(shared_world: World) -> None:
    """Every field of a verdict, a new connection and a drop."""
    from cirri.layout import address16
    from cirri.testing.packets import V4, send

    world = shared_world
    world.reset()
    world.enforce({"B": DENY_IN}, (Entry("B", IN, A.identity, TCP, 80, 16, rule=20),))
    verdict, new = send(world, "A", V4.tcp(V4.a, V4.b, "S")).events
    assert (verdict.source, verdict.destination) == (address16(V4.a), address16(V4.b))
    assert (verdict.source_port, verdict.destination_port) == (40000, 80)
    assert (verdict.source_identity, verdict.destination_identity) == (A.identity, B.identity)
    assert (verdict.endpoint, verdict.protocol, verdict.length, verdict.tcp_flags) == (B.id, TCP, 54, 2)
    assert 0 < verdict.timestamp <= new.timestamp
    assert (new.source_identity, new.destination_identity, new.rule) == (A.identity, B.identity, 20)
    denied, drop = send(world, "A", V4.ping(V4.a, V4.b)).events
    assert (denied.source_port, denied.destination_port, denied.protocol) == (7, 8, 1)
    assert (drop.reason, drop.endpoint, drop.direction) == (133, B.id, IN)
    assert (drop.source_identity, drop.destination_identity) == (A.identity, B.identity)


def test_events_lost_are_counted(shared_world: World) -> None:
    """Every event is either in the ring or in the count of those lost."""
    from cirri.layout import EventCounter
    from cirri.testing.packets import V4, send

    world = shared_world
    world.reset()
    submitted, lost = world.counted(EventCounter.SUBMITTED), world.counted(EventCounter.LOST)
    packet = V4.udp(V4.world, V4.b)  # dropped: not A's address
    from cirri.maps import SkBuff, test_run
    from cirri.testing.packets import FROM_POD, frame

    sent = 50_000  # x 104 bytes do not fit into 4 MiB
    program, context = world.programs[FROM_POD], SkBuff(ifindex=world.ifindex["A"])

    def run() -> None:
        test_run(program, frame("A", packet), context=context, repeat=sent)

    world.apart.call(run) if world.apart else run()  # where the device is
    got = len(world.events())
    submitted = world.counted(EventCounter.SUBMITTED) - submitted
    lost = world.counted(EventCounter.LOST) - lost
    assert (got, got + lost) == (submitted, sent)
    assert lost > 0
    world.counted_since()
    assert send(world, "A", packet).events, "the ring takes events again"
