"""Audit: what policy would drop passes and is told; and entries that are tried out beside those in force."""

import pytest

from cirri.layout import CtFlag, DropReason, EndpointFlag, PolicyDirection
from cirri.testing.datapath import R_IDENTITY, A, B, Entry, World
from cirri.testing.packets import (
    AWAY,
    FAMILIES,
    RAISE,
    Case,
    Do,
    Family,
    Send,
    change,
    connections,
    only,
    play,
)

IN, OUT = PolicyDirection.INGRESS, PolicyDirection.EGRESS
DENY_IN, DENY_OUT = EndpointFlag.ENFORCE_INGRESS, EndpointFlag.ENFORCE_EGRESS
AUDIT = EndpointFlag.AUDIT
TRY_IN, TRY_OUT = EndpointFlag.AUDIT_INGRESS, EndpointFlag.AUDIT_EGRESS
TOLD_IN, TOLD_OUT = CtFlag.AUDITED_INGRESS, CtFlag.AUDITED_EGRESS
NONE_OUT = "egress POLICY match=0 rule=0"
AUDITED_IN, AUDITED_OUT = "ingress audited POLICY match=0 rule=0", "egress audited POLICY match=0 rule=0"
ALLOWED = "egress allow match=2 rule=10"


def remembered(flags: CtFlag | int, egress_rule: int = 0, ingress_rule: int = 0) -> Do:
    """What the one connection says of audit, and by which rules it was allowed."""

    def check(world: World) -> None:
        _, value = only(world)
        assert CtFlag(value.flags) & (TOLD_IN | TOLD_OUT) == flags
        assert (value.egress_rule, value.ingress_rule) == (egress_rule, ingress_rule)

    return Do(check)


def verdicts(entry: Entry, count: int) -> Do:
    """The entry gave so many verdicts."""

    def check(world: World) -> None:
        assert world.policy[entry.key].packets == count

    return Do(check)


def rows(f: Family) -> list[Case]:
    """Rows that hold for either family."""
    a, b = f.a, f.b
    syn, ack = f.tcp(a, b, "S"), f.tcp(a, b, "A")
    answer = f.tcp(b, a, "SA", 80, 40000)
    port = Entry("A", OUT, B.identity, 6, 80, 16, rule=10)
    allow_in = Entry("B", IN, A.identity, 6, 80, 16, rule=20)
    deny, tried = port._replace(rule=11, deny=True), port._replace(rule=30, tried=True)
    audited = {"A": DENY_OUT | AUDIT}
    known = (Send("B", answer, "A"), Send("A", ack, "B"))
    in_audit = [
        Case(
            "nothing allows it",
            (Send("A", syn, "B", (AUDITED_OUT, "new")), *known, remembered(TOLD_OUT)),
            audited,
        ),
        *(
            Case(
                f"an entry says {name}",
                (
                    Send("A", syn, "B", (f"egress audited {name} match=2 rule=11", "new")),
                    *known,
                    remembered(TOLD_OUT),
                    verdicts(entry, 1),
                ),
                audited,
                (entry,),
            )
            for name, entry in (
                ("POLICY_DENY", deny),
                ("POLICY_AUTH_REQUIRED", deny._replace(deny=False, auth=True)),
                ("PROXY_UNKNOWN_PROTO", deny._replace(deny=False, priority=27)),
            )
        ),
        Case(
            "both ends",
            (
                Send("A", syn, "B", (AUDITED_OUT, AUDITED_IN, "new")),
                *known,
                remembered(TOLD_IN | TOLD_OUT),
            ),
            {"A": DENY_OUT | AUDIT, "B": DENY_IN | AUDIT},
        ),
        Case(
            "one end: the other one enforces",
            (Send("A", syn, DropReason.POLICY, (AUDITED_OUT, "ingress POLICY match=0 rule=0")),),
            {"A": DENY_OUT | AUDIT, "B": DENY_IN},
        ),
        Case(
            "a rule allows it",
            (Send("A", syn, "B", (ALLOWED, "new")), *known, remembered(0, 10)),
            audited,
            (port,),
        ),
        Case(
            "nothing is enforced, nothing is told",
            (Send("A", syn, "B", ("new",)), remembered(0)),
            {"A": AUDIT},
        ),
        Case(
            "from elsewhere",
            (Send("net", f.tcp(f.r, b, "S"), "B", (AUDITED_IN, "new")), remembered(TOLD_IN)),
            {"B": DENY_IN | AUDIT},
        ),
        Case(
            "from the node",
            (Send(">B", f.tcp(f.host, b, "S"), "B", (AUDITED_IN, "new")),),
            {"B": DENY_IN | AUDIT},
        ),
        Case(
            "what is no matter of policy is dropped",
            (
                Send("A", f.tcp(f.r, b, "S"), DropReason.INVALID_SOURCE_IP),
                Send("A", f.tcp(a, b, "SF"), DropReason.CT_INVALID_HEADER),
            ),
            {"A": DENY_OUT | DENY_IN | AUDIT},
        ),
        Case(
            "what leaves nothing is told each time",
            (
                Send("A", f.tcp(a, b, "R"), "B", (AUDITED_OUT,)),
                Send("A", f.tcp(a, b, "R"), "B", (AUDITED_OUT,)),
                connections(0),
            ),
            audited,
        ),
    ]
    afterwards = [
        Case(
            "something else changed: told once",
            (
                Send("A", syn, "B", (AUDITED_OUT, AUDITED_IN, "new")),
                *(RAISE, *known, RAISE, *known),
                remembered(TOLD_IN | TOLD_OUT),
            ),
            {"A": DENY_OUT | AUDIT, "B": DENY_IN | AUDIT},
        ),
        Case(
            "another connection: told again",
            (
                Send("A", syn, "B", (AUDITED_OUT, "new")),
                Send("A", f.tcp(a, b, "S", 40001, 80), "B", (AUDITED_OUT, "new")),
            ),
            audited,
        ),
        Case(
            "audit ends: cut",
            (
                Send("A", syn, "B", (AUDITED_OUT, "new")),
                change({"A": DENY_OUT}),
                Send("B", answer, DropReason.POLICY, (NONE_OUT,)),
                Send("A", ack, DropReason.POLICY, (NONE_OUT,)),
            ),
            audited,
        ),
        Case(
            "audit begins: passes again, and is told",
            (
                Send("A", syn, "B", (ALLOWED, "new")),
                change({"A": DENY_OUT}),
                Send("A", ack, DropReason.POLICY, (NONE_OUT,)),
                change(audited),
                Send("A", ack, "B", (AUDITED_OUT,)),
                remembered(TOLD_OUT),
                Send("B", answer, "A"),
            ),
            {"A": DENY_OUT},
            (port,),
        ),
        Case(
            "a rule allows it now: remembered as allowed by that rule",
            (
                Send("A", syn, "B", (AUDITED_OUT, "new")),
                change(audited, (port,)),
                Send("B", answer, "A"),
                remembered(0, 10),
                change({"A": DENY_OUT}, (port,)),
                Send("A", ack, "B"),
            ),
            audited,
        ),
        Case(
            "the rule is gone: told, and remembered as allowed by none",
            (
                Send("A", syn, "B", (ALLOWED, "new")),
                change(audited),
                Send("B", answer, "A", (AUDITED_OUT,)),
                Send("A", ack, "B"),
                remembered(TOLD_OUT),
            ),
            audited,
            (port,),
        ),
        Case(
            "the other end's policy too: told for that end alone",
            (
                Send("A", syn, "B", (AUDITED_OUT, "new")),
                change({**audited, "B": DENY_IN | AUDIT}),
                Send("A", ack, "B", (AUDITED_IN,)),
                remembered(TOLD_OUT | TOLD_IN),
            ),
            audited,
        ),
    ]
    beside = [
        Case(
            "tried: would be dropped",
            (
                Send("A", syn, "B", ("egress audited POLICY match=0 rule=0", "new")),
                *known,
                remembered(TOLD_OUT, 10),
                verdicts(port, 1),
            ),
            {"A": DENY_OUT | TRY_OUT},
            (port,),
        ),
        Case(
            "tried: an entry denies it",
            (
                Send("A", syn, "B", ("egress audited POLICY_DENY match=2 rule=30", "new")),
                remembered(TOLD_OUT, 10),
                verdicts(tried, 1),
            ),
            {"A": DENY_OUT | TRY_OUT},
            (port, tried._replace(deny=True)),
        ),
        Case(
            "tried: allows it, and the rule in force is told",
            (
                Send("A", syn, "B", (ALLOWED, "new")),
                remembered(0, 10),
                verdicts(tried, 1),
            ),
            {"A": DENY_OUT | TRY_OUT},
            (port, tried),
        ),
        Case(
            "tried: not asked what is denied anyway",
            (Send("A", syn, DropReason.POLICY, (NONE_OUT,)), verdicts(tried, 0)),
            {"A": DENY_OUT | TRY_OUT},
            (tried,),
        ),
        Case(
            "tried: nothing else is in force",
            (Send("A", syn, "B", (AUDITED_OUT, "new")), remembered(TOLD_OUT)),
            {"A": TRY_OUT},
        ),
        Case(
            "tried: the other direction",
            (
                Send("A", syn, "B", ("new",)),
                Send("net", f.tcp(f.r, a, "S"), "A", (AUDITED_IN, "new")),
                Send("A", f.tcp(a, f.r, "SA", 80, 40000), AWAY),
            ),
            {"A": TRY_IN},
        ),
        Case(
            "tried: a denial alone",
            (
                Send("A", syn, "B", ("egress audited POLICY_DENY match=1 rule=31", "new")),
                Send("A", f.udp(a, f.r), AWAY, ("new",)),
            ),
            {"A": 0},
            (Entry("A", OUT, B.identity, rule=31, deny=True, tried=True),),
        ),
        Case(
            "tried: told once, and is gone",
            (
                Send("A", syn, "B", ("egress audited POLICY match=0 rule=0", "new")),
                *(RAISE, *known),
                change({"A": DENY_OUT}, (port,)),
                Send("A", ack, "B"),
                remembered(0, 10),
            ),
            {"A": DENY_OUT | TRY_OUT},
            (port,),
        ),
        Case(
            "tried: comes into force",
            (
                Send("A", syn, "B", ("egress audited POLICY match=0 rule=0", "new")),
                change({"A": DENY_OUT}),
                Send("A", ack, DropReason.POLICY, (NONE_OUT,)),
            ),
            {"A": DENY_OUT | TRY_OUT},
            (port,),
        ),
        Case(
            "tried at both ends",
            (
                Send(
                    "A",
                    syn,
                    "B",
                    ("egress audited POLICY match=0 rule=0", "ingress audited POLICY match=0 rule=0", "new"),
                ),
                remembered(TOLD_OUT | TOLD_IN, 10, 20),
            ),
            {"A": DENY_OUT | TRY_OUT, "B": DENY_IN | TRY_IN},
            (port, allow_in),
        ),
        Case(
            "tried in an endpoint under audit: the policy in force is told",
            (
                Send("A", syn, "B", (AUDITED_OUT, "new")),
                Send("A", f.udp(a, f.r), AWAY, ("egress audited POLICY_DENY match=1 rule=32", "new")),
                verdicts(tried, 0),
            ),
            {"A": DENY_OUT | TRY_OUT | AUDIT},
            (
                tried,
                Entry("A", OUT, R_IDENTITY, rule=9),
                Entry("A", OUT, R_IDENTITY, rule=32, deny=True, tried=True),
            ),
        ),
    ]
    return [Case(f"{f.name} {c.id}", c.steps, c.flags, c.entries) for c in (*in_audit, *afterwards, *beside)]


CASES = [case for f in FAMILIES for case in rows(f)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_audit(shared_world: World, case: Case) -> None:
    play(shared_world, case)


def test_event_of_an_audited_connection(shared_world: World) -> None:
    """Why it would not have passed stands beside that it did."""
    from cirri.testing.packets import V4, send

    shared_world.reset()
    shared_world.enforce({"A": DENY_OUT | AUDIT})
    verdict, new = send(shared_world, "A", V4.tcp(V4.a, V4.b, "S")).events
    assert (verdict.audited, verdict.reason, verdict.direction, verdict.endpoint) == (1, 133, OUT, A.id)
    assert (new.audited, new.reason, new.rule) == (0, 0, 0)
