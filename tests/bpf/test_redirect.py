"""Redirects to proxies and policy about names, packet by packet.

A test run cannot give a packet to a socket (only what really came by a device can be given), so here a
redirect ends with the reason why not; ``test_live_redirect.py`` has the sockets.
"""

import socket

import pytest
from msgspec.structs import replace

from cirri.layout import (
    CtFlag,
    DropReason,
    EndpointFlag,
    Mark,
    NameKey,
    PolicyDirection,
    RuntimeFlag,
    address16,
)
from cirri.testing.datapath import TC_REDIRECT, TC_SHOT, A, Entry, World
from cirri.testing.packets import (
    FAMILIES,
    STACK,
    V4,
    Case,
    Do,
    Family,
    Send,
    change,
    frame,
    only,
    play,
    send,
    told,
)

IN, OUT = PolicyDirection.INGRESS, PolicyDirection.EGRESS
DENY_IN, DENY_OUT, NAMES = EndpointFlag.ENFORCE_INGRESS, EndpointFlag.ENFORCE_EGRESS, EndpointFlag.NAMES
PROXY, NUMBER = 11000, 0x0300_0007
NO_PROXY = DropReason.NO_PROXY


def switch(world: World) -> None:
    """There are redirects."""
    config = world.runtime[0]
    world.runtime.put(0, replace(config, flags=config.flags | RuntimeFlag.PROXIES))


ON = Do(switch)


def flagged(flags: CtFlag) -> Do:
    """The one connection has these flags, of those that proxies have."""

    def check(world: World) -> None:
        _, value = only(world)
        assert CtFlag(value.flags) & (CtFlag.REDIRECTED | CtFlag.UPSTREAM) == flags

    return Do(check)


def entry(
    pod: str = "A",
    direction: PolicyDirection = OUT,
    peer: int = 0,
    protocol: int = 6,
    *,
    port: int = 80,
    bits: int = 16,
    proxy_port: int = PROXY,
) -> Entry:
    """An entry that redirects."""
    return Entry(pod, direction, peer, protocol, port, bits, rule=7, priority=1, proxy_port=proxy_port)


def redirects(f: Family) -> list[Case]:
    """What becomes a proxy's, and what cannot."""
    out, into = "egress allow match=3 rule=7 proxy=11000", "ingress allow match=3 rule=7 proxy=11000"
    syn, answer = f.tcp(f.a, f.b, "S"), f.tcp(f.b, f.a, "SA", 80, 40000)
    plain = Entry("A", OUT, 0, 6, 80, 16, rule=8)
    closed = {"A": DENY_OUT}
    return [
        Case(
            "egress, and nobody listens",
            (
                ON,
                Send("A", syn, NO_PROXY, (out,)),
                flagged(CtFlag.REDIRECTED),
                Send("A", syn, NO_PROXY),
            ),
            closed,
            (entry(),),
        ),
        Case(
            "egress of a datagram",
            (ON, Send("A", f.udp(f.a, f.world), NO_PROXY, (out,))),
            closed,
            (entry(protocol=17, port=53),),
        ),
        Case(
            "ingress by the uplink",
            (ON, Send("net", f.tcp(f.r, f.b, "S"), NO_PROXY, (into,))),
            {},
            (entry("B", IN),),
        ),
        Case("ingress from here", (ON, Send("A", syn, NO_PROXY, (into,))), {}, (entry("B", IN),)),
        Case(
            "a protocol that no proxy takes",
            (
                ON,
                Send(
                    "A",
                    f.sctp(f.a, f.b),
                    DropReason.PROXY_UNKNOWN_PROTO,
                    ("egress PROXY_UNKNOWN_PROTO match=4 rule=7",),
                ),
            ),
            closed,
            (entry(protocol=0, port=0, bits=0),),
        ),
        Case(
            "a proxy that is not ready",
            (
                ON,
                Send(
                    "A", syn, DropReason.PROXY_UNKNOWN_PROTO, ("egress PROXY_UNKNOWN_PROTO match=3 rule=7",)
                ),
            ),
            closed,
            (entry(proxy_port=0),),
        ),
        Case(
            "datagrams in fragments",
            (
                ON,
                Send(
                    "A",
                    f.fragments(f.a, f.world, f.udp(f.a, f.world, size=64).payload)[0],
                    DropReason.PROXY_UNKNOWN_PROTO,
                    (out,),
                ),
            ),
            closed,
            (entry(protocol=17, port=53),),
        ),
        Case(
            "a known connection becomes a proxy's",
            (
                ON,
                Send("A", syn, "B", ("egress allow match=3 rule=8", "new")),
                Send("B", answer, "A"),
                change(closed, (entry(),)),
                Send("A", f.tcp(f.a, f.b, "A"), NO_PROXY),
                flagged(CtFlag.REDIRECTED),
                Send("B", answer, DropReason.UNROUTABLE),
            ),
            closed,
            (plain,),
        ),
        Case(
            "its server speaks first",
            (
                ON,
                Send("A", syn, "B", ("egress allow match=3 rule=8", "new")),
                change(closed, (entry(),)),
                Send("B", answer, DropReason.UNROUTABLE),
                flagged(CtFlag.REDIRECTED),
            ),
            closed,
            (plain,),
        ),
        Case(
            "no socket has it, and no proxy need",
            (
                ON,
                Send("A", syn, NO_PROXY, (out,)),
                change(closed, (plain,)),
                Send("A", syn, "B"),
                flagged(CtFlag(0)),
                Send("B", answer, "A"),
            ),
            closed,
            (entry(),),
        ),
    ]


def names(f: Family) -> list[Case]:
    """A destination that its endpoint knows by name."""

    def known(world: World) -> None:
        world.names.put(NameKey(endpoint=A.id, address=address16(f.world)), NUMBER)
        world.names.put(NameKey(endpoint=A.id, address=address16(f.cidr)), NUMBER)
        world.names.put(NameKey(endpoint=A.id, address=address16(f.r)), NUMBER)

    def destination(number: int) -> Do:
        def check(world: World) -> None:
            assert only(world)[1].destination_identity == number

        return Do(check)

    learn, world = Do(known), f.tcp(f.a, f.world, "S")
    closed = {"A": DENY_OUT | NAMES}
    by_name = Entry("A", OUT, NUMBER, 6, 80, 16, rule=1)
    by_address = Entry("A", OUT, f.world_identity, 6, 80, 16, rule=2)
    anybody = Entry("A", OUT, 0, 6, 80, 16, rule=3)
    none = "egress POLICY match=0 rule=0"
    named, own, all_ = (f"egress allow match={m} rule={r}" for m, r in ((2, 1), (2, 2), (3, 3)))
    denied = "egress POLICY_DENY match=2 rule="
    proxied = f"egress allow match=2 rule=1 proxy={PROXY}"

    def case(what: str, told: str, *entries: Entry, identity: int = 0, to: object = STACK) -> Case:
        reason = to if isinstance(to, DropReason) else None
        steps = (Send("A", world, reason or STACK, (told,) if reason else (told, "new")),)
        return Case(
            f"name: {what}",
            (ON, learn, *steps, *([destination(identity)] if identity else [])),
            closed,
            entries,
        )

    return [
        case("allowed", named, by_name, identity=NUMBER),
        case("no rule", none, to=DropReason.POLICY),
        case("the address is allowed", own, by_address, identity=f.world_identity),
        case("both are", named, by_name, by_address, identity=NUMBER),
        case("everybody is, too", named, by_name, anybody, identity=NUMBER),
        case(
            "everybody is, by a longer prefix",
            all_,
            by_name._replace(port=0, bits=0),
            anybody,
            identity=f.world_identity,
        ),
        case(
            "the address, by a longer prefix",
            own,
            by_name._replace(port=0, bits=0),
            by_address,
            identity=f.world_identity,
        ),
        case(
            "the name is denied",
            f"{denied}1",
            by_name._replace(deny=True),
            by_address,
            to=DropReason.POLICY_DENY,
        ),
        case(
            "the address is denied",
            f"{denied}2",
            by_name,
            by_address._replace(deny=True),
            to=DropReason.POLICY_DENY,
        ),
        case(
            "the name's proxy",
            proxied,
            by_name._replace(priority=1, proxy_port=PROXY),
            by_address,
            to=NO_PROXY,
        ),
        case(
            "the address' proxy",
            proxied.replace("rule=1", "rule=2"),
            by_name,
            by_address._replace(priority=1, proxy_port=PROXY),
            to=NO_PROXY,
        ),
        Case("name: nothing learnt", (Send("A", world, DropReason.POLICY, (none,)),), closed, (by_name,)),
        Case(
            "name: nobody asks for names",
            (learn, Send("A", world, DropReason.POLICY, (none,))),
            {"A": DENY_OUT},
            (by_name,),
        ),
        Case(
            "name: of a prefix outside",
            (learn, Send("A", f.tcp(f.a, f.cidr, "S"), STACK, (named, "new")), destination(NUMBER)),
            closed,
            (by_name,),
        ),
        Case(
            "name: a pod has none",
            (learn, Send("A", f.tcp(f.a, f.r, "S"), DropReason.POLICY, (none,))),
            closed,
            (by_name,),
        ),
        Case(
            "name: another one's",
            (learn, Send("B", f.tcp(f.b, f.world, "S"), DropReason.POLICY, (none,))),
            {"B": DENY_OUT | NAMES},
            (by_name._replace(pod="B"),),
        ),
        Case(
            "name: forgotten while the connection lives",
            (
                learn,
                Send("A", world, STACK, (named, "new")),
                Do(lambda w: w.names.clear()),
                Send("A", f.tcp(f.a, f.world, "A"), STACK),
            ),
            closed,
            (by_name,),
        ),
        Case(
            "name: tried out",
            (
                learn,
                Send("A", world, STACK, ("egress audited POLICY_DENY match=2 rule=4", "new")),
            ),
            closed,
            (by_name, by_name._replace(rule=4, deny=True, tried=True)),
        ),
    ]


def both() -> list[Case]:
    """Every row for IPv4 and IPv6."""
    return [
        Case(f"{case.id}, {f.name}", case.steps, case.flags, case.entries)
        for f in FAMILIES
        for case in (*redirects(f), *names(f))
    ]


CASES = both()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rows(shared_world: World, case: Case) -> None:
    play(shared_world, case)


def test_a_socket_listens(shared_world: World) -> None:
    """It is found; a test run's packet came by no device, so it cannot have it."""
    shared_world.reset()
    switch(shared_world)
    shared_world.enforce({"A": DENY_OUT}, (entry(),))
    assert shared_world.apart
    with shared_world.apart.call(lambda: socket.create_server(("127.0.0.1", PROXY))):
        result = send(shared_world, "A", V4.tcp(V4.a, V4.b, "S"))
    assert result.action == TC_SHOT
    assert told(result.events[-1]) == "drop PROXY_ASSIGN egress"


def test_the_nodes_own_packets_go_round(shared_world: World) -> None:
    """By the pod's device, with the port beside the mark; a proxy's go on."""
    shared_world.reset()
    switch(shared_world)
    shared_world.enforce({"B": DENY_IN}, (entry("B", IN),))
    packet = frame(">B", V4.tcp(V4.host, V4.b, "S"))
    device = shared_world.ifindex["B"]
    result = shared_world.run("tc/to_pod", packet, device)
    assert (result.action, told(result.events[0])) == (
        TC_REDIRECT,
        "ingress allow match=3 rule=7 proxy=11000",
    )
    result = shared_world.run("tc/from_pod", packet, device, mark=Mark.TO_PROXY | PROXY << 16)
    assert told(result.events[0]) == "drop NO_PROXY ingress"
    result = shared_world.run("tc/to_pod", packet, device, mark=Mark.INGRESS_SERVER)
    assert (result.action, result.events) == (0, [])
    assert len(shared_world.ct.to_dict()) == 2
    assert {
        key.leg: CtFlag(value.flags) & (CtFlag.REDIRECTED | CtFlag.UPSTREAM)
        for key, value in shared_world.ct.to_dict().items()
    } == {
        0: CtFlag.REDIRECTED,
        1: CtFlag.UPSTREAM,
    }


def test_an_answer_without_a_question(shared_world: World) -> None:
    """A proxy answers a connection that is not known (any more)."""
    shared_world.reset()
    switch(shared_world)
    for mark in (Mark.EGRESS_CLIENT, Mark.INGRESS_CLIENT):
        packet = frame(">A", V4.tcp(V4.b, V4.a, "A", 80, 40000))
        result = shared_world.run("tc/to_pod", packet, shared_world.ifindex["A"], mark=mark)
        assert [told(event) for event in result.events] == ["drop UNROUTABLE ingress"]
