"""The node and its own pods, and what the node only forwards, while the host firewall is on."""

from typing import Any

import pytest
from msgspec.structs import replace
from scapy.layers.inet import UDP
from scapy.packet import Raw

from cirri.layout import DropReason, EndpointFlag, PolicyDirection
from cirri.testing.datapath import UNLISTED4, UNLISTED6, A, Entry, World
from cirri.testing.packets import (
    AWAY,
    FAMILIES,
    HOST,
    RAISE,
    STACK,
    Case,
    Do,
    Family,
    Send,
    change,
    connections,
    play,
)

IN, OUT = PolicyDirection.INGRESS, PolicyDirection.EGRESS
DENY_BOTH = EndpointFlag.ENFORCE_INGRESS | EndpointFlag.ENFORCE_EGRESS
NONE_IN, NONE_OUT = "ingress POLICY match=0 rule=0", "egress POLICY match=0 rule=0"
CLOSED = {"H": DENY_BOTH}
NEW = ("new",)


def off(world: World) -> None:
    """The node's entries stay, the firewall is switched off."""
    world.runtime.put(0, replace(world.runtime[0], flags=0))


def let(direction: PolicyDirection, peer: int, protocol: int = 0, port: int = 0, rule: int = 1) -> Entry:
    """An entry of the node's policy."""
    return Entry("H", direction, peer, protocol, port, 16 if protocol else 0, rule)


def plain(f: Family, source: str, destination: str, protocol: int) -> Any:
    """A packet of a protocol that has no ports."""
    return f.ip(source, destination, **f.next(protocol)) / Raw(bytes(24))


def through(f: Family) -> list[Case]:
    """What is forwarded is not the node's."""
    host, world = f.host, f.world
    shared_out, shared_in = f.tcp(host, world, "S", 30000, 443), f.tcp(world, host, "SA", 443, 30000)
    ack_in = f.tcp(world, host, "A", 443, 30000)
    return [
        Case(
            "to others",
            (
                Send("net", f.tcp(world, f.r, "S"), STACK),
                Send("net", f.tcp(world, f.cidr, "S"), STACK),
                Send("through", f.tcp(f.r, world, "S"), STACK),
                Send("through", plain(f, f.r, world, 47), STACK),
                connections(0),
            ),
            CLOSED,
        ),
        Case(
            "pods are judged as pods, once",
            (
                Send("A", f.tcp(f.a, world, "S"), STACK, ("egress allow match=1 rule=1", "new")),
                Send("through", f.tcp(f.a, world, "S"), STACK),
                Send("net", f.tcp(world, f.a, "SA", 80, 40000), "A"),
                Send("net", f.tcp(f.r, f.a, "S"), DropReason.POLICY, (NONE_IN,)),
                connections(1),
            ),
            {**CLOSED, "A": DENY_BOTH},
            (Entry("A", OUT, f.world_identity, rule=1),),
        ),
        Case(
            "to pods, by the stack",
            (
                Send("~A", f.tcp(world, f.a, "S"), "A", NEW),
                Send("~A", f.tcp(f.r, f.a, "S"), "A", NEW),
            ),
            CLOSED,
        ),
        Case(
            "under the node's address: the answers pass, without a word",
            (
                Send("through", shared_out, STACK),
                Send("net", shared_in, HOST),
                *(RAISE, Send("net", ack_in, HOST)),
                *(RAISE, Send("through", f.tcp(host, world, "A", 30000, 443), STACK)),
                Send("net", f.error(f.r, host, shared_out), HOST),
                Send("net", f.tcp(world, host, "S", 443, 30000), DropReason.POLICY, (NONE_IN,)),
                Send("net", f.tcp(world, host, "A", 443, 30001), DropReason.POLICY, (NONE_IN,)),
                Send("through", f.tcp(host, world, "R", 30000, 443), STACK),
                connections(1),
            ),
            CLOSED,
        ),
        Case(
            "under the node's address: no first fragment is no matter",
            (Send("through", f.fragments(host, world, UDP(sport=5, dport=53) / Raw(bytes(40)))[1], STACK),),
            CLOSED,
        ),
    ]


def pods(f: Family) -> list[Case]:
    """Between the node and its own pods."""
    syn, answer = f.tcp(f.a, f.host, "S"), f.tcp(f.host, f.a, "SA", 80, 40000)
    probe, alive = f.tcp(f.host, f.a, "S", 1024, 8080), f.tcp(f.a, f.host, "SA", 8080, 1024)
    out_a, in_a = Entry("A", OUT, 1, rule=10), Entry("A", IN, 1, rule=11)
    in_h, out_h = let(IN, A.identity, 6, 80, 12), let(OUT, A.identity, rule=13)
    unlisted = UNLISTED4 if f.version == 4 else UNLISTED6
    both = {**CLOSED, "A": DENY_BOTH}
    to_host, to_pod = ("egress allow match=1 rule=10",), ("egress allow match=1 rule=13",)
    return [
        Case(
            "a pod to its node: both are asked",
            (
                Send("A", syn, HOST, (*to_host, "ingress allow match=2 rule=12", "new")),
                Send(">A", answer, "A"),
                Send("A", f.tcp(f.a, f.host, "A"), HOST),
                Send("A", f.tcp(f.a, f.host, "S", 1, 81), DropReason.POLICY, (*to_host, NONE_IN)),
                Send("B", f.tcp(f.b, f.host, "S"), DropReason.POLICY, (NONE_IN,)),
            ),
            both,
            (out_a, in_h),
        ),
        Case(
            "a pod to its node: its own policy",
            (Send("A", syn, DropReason.POLICY, (NONE_OUT,)),),
            both,
            (in_h,),
        ),
        Case(
            "a pod to its node, switched off: the pod alone is asked",
            (Do(off), Send("A", syn, STACK, (*to_host, "new")), Send(">A", answer, "A")),
            both,
            (out_a,),
        ),
        Case(
            "a pod to an address of its node that no map knows",
            (
                Send("B", f.tcp(f.b, unlisted, "S"), DropReason.POLICY, (NONE_IN,)),
                Send("A", f.tcp(f.a, unlisted, "S"), HOST, ("ingress allow match=2 rule=12", "new")),
                Send(">A", f.tcp(unlisted, f.a, "SA", 80, 40000), "A"),
            ),
            CLOSED,
            (in_h,),
        ),
        Case(
            "a pod to others: its node is not asked",
            (
                Send("A", f.tcp(f.a, f.b, "S"), "B", NEW),
                Send("A", f.tcp(f.a, f.r, "S"), AWAY, NEW),
                Send("A", f.tcp(f.a, f.world, "S"), STACK, NEW),
            ),
            CLOSED,
        ),
        Case(
            "the node to its pod: both are asked",
            (
                Send(">A", probe, "A", (*to_pod, "ingress allow match=1 rule=11", "new")),
                Send("A", alive, HOST),
                Send(">B", f.tcp(f.host, f.b, "S"), DropReason.POLICY, (NONE_OUT,)),
            ),
            both,
            (out_h, in_a),
        ),
        Case(
            "the node to its pod: the pod's policy",
            (Send(">A", probe, DropReason.POLICY, (*to_pod, NONE_IN)),),
            both,
            (out_h,),
        ),
        Case(
            "the node to its pod, from an address that no map knows",
            (
                Send(
                    ">A",
                    f.tcp(unlisted, f.a, "S", 1024, 8080),
                    "A",
                    (*to_pod, "ingress allow match=1 rule=11", "new"),
                ),
                Send("A", f.tcp(f.a, unlisted, "SA", 8080, 1024), HOST),
            ),
            both,
            (out_h, in_a),
        ),
        Case(
            "the node to its pod, switched off: the pod alone is asked",
            (
                Do(off),
                Send(">A", probe, "A", ("ingress allow match=1 rule=11", "new")),
                Send("A", alive, STACK),
            ),
            both,
            (in_a,),
        ),
        Case(
            "policy changes on either side",
            (
                Send("A", syn, HOST, (*to_host, "ingress allow match=2 rule=12", "new")),
                change(both, (out_a,)),
                Send(">A", answer, DropReason.POLICY, (NONE_IN,)),
                change(both, (in_h,)),
                Send(">A", answer, DropReason.POLICY, (NONE_OUT,)),
                change(both, (out_a, in_h)),
                Send(">A", answer, "A"),
            ),
            both,
            (out_a, in_h),
        ),
        Case(
            "as a router it speaks of a pod's packet",
            (
                Send("A", f.tcp(f.a, f.r, "S"), AWAY, NEW),
                Send(">A", f.error(f.host, f.a, f.tcp(f.a, f.r, "S")), "A"),
                Send(">A", f.error(f.host, f.a, f.tcp(f.a, f.r, "S", 1, 2)), DropReason.POLICY, (NONE_OUT,)),
            ),
            CLOSED,
        ),
        Case(
            "a pod's error about what the node sent",
            (
                Send(">A", f.udp(f.host, f.a), "A", (*to_pod, "new")),
                Send("A", f.error(f.a, f.host, f.udp(f.host, f.a)), HOST),
                Send("A", f.error(f.a, f.host, f.udp(f.host, f.b)), DropReason.POLICY, (NONE_IN,)),
            ),
            CLOSED,
            (out_h,),
        ),
        Case(
            "a pod that pretends to be its node",
            (Send("A", f.tcp(f.host, f.r, "S"), DropReason.INVALID_SOURCE_IP),),
            CLOSED,
        ),
    ]


CASES = [
    Case(f"{f.name} node: {c.id}", c.steps, c.flags, c.entries)
    for f in FAMILIES
    for c in (*pods(f), *through(f))
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_host_pods(shared_world: World, case: Case) -> None:
    play(shared_world, case)
