"""The node as an endpoint: what comes to it and what it sends by the uplink, while the host firewall is on.

Its pods and what only passes through: ``test_host_pods.py``; what is never blocked:
``test_host_essentials.py``.
"""

from typing import Any

import pytest
from msgspec.structs import replace
from scapy.layers.inet import UDP
from scapy.packet import Raw

from cirri.layout import DropReason, EndpointFlag, PolicyDirection, address16
from cirri.testing.datapath import NODE, R_IDENTITY, UNLISTED4, UNLISTED6, B, Entry, World
from cirri.testing.packets import (
    CIDR,
    FAMILIES,
    HOST,
    RAISE,
    STACK,
    V4,
    V6,
    Case,
    Do,
    Family,
    Send,
    change,
    connections,
    play,
    send,
)

IN, OUT = PolicyDirection.INGRESS, PolicyDirection.EGRESS
DENY_BOTH = EndpointFlag.ENFORCE_INGRESS | EndpointFlag.ENFORCE_EGRESS
NONE_IN, NONE_OUT = "ingress POLICY match=0 rule=0", "egress POLICY match=0 rule=0"
CLOSED = {"H": DENY_BOTH}
NEW = ("new",)
SSH = 22


def off(world: World) -> None:
    """The node's entries stay, the firewall is switched off."""
    world.runtime.put(0, replace(world.runtime[0], flags=0))


def unnamed(world: World) -> None:
    """The entry under no address is not there (yet)."""
    world.endpoints.delete(address16("::"))


def let(direction: PolicyDirection, peer: int, protocol: int = 0, port: int = 0, rule: int = 1) -> Entry:
    """An entry of the node's policy."""
    return Entry("H", direction, peer, protocol, port, 16 if protocol else 0, rule)


def wire(f: Family) -> list[Case]:
    """Between the node and others, by the uplink."""
    host, world, there = f.host, f.world, f.world_identity
    syn_in = f.tcp(world, host, "S", 40000, SSH)
    answer_out, ack_in = f.tcp(host, world, "SA", SSH, 40000), f.tcp(world, host, "A", 40000, SSH)
    syn_out = f.tcp(host, world, "S")
    answer_in, ack_out = f.tcp(world, host, "SA", 80, 40000), f.tcp(host, world, "A")
    ssh, web = let(IN, there, 6, SSH), let(OUT, there, 6, 80)
    allowed_in, allowed_out = ("ingress allow match=2 rule=1", "new"), ("egress allow match=2 rule=1", "new")
    unlisted = UNLISTED4 if f.version == 4 else UNLISTED6
    return [
        Case(
            "switched off",
            (Do(off), Send("net", syn_in, STACK), Send("node", syn_out, STACK), connections(0)),
            CLOSED,
        ),
        Case(
            "nothing enforced",
            (
                Send("net", syn_in, HOST, NEW),
                Send("node", answer_out, HOST),
                Send("node", syn_out, HOST, NEW),
                Send("net", answer_in, HOST),
                connections(2),
            ),
            {"H": 0},
        ),
        Case("in: denied", (Send("net", syn_in, DropReason.POLICY, (NONE_IN,)), connections(0)), CLOSED),
        Case("out: denied", (Send("node", syn_out, DropReason.POLICY, (NONE_OUT,)), connections(0)), CLOSED),
        Case(
            "in: allowed, and the answers",
            (
                Send("net", syn_in, HOST, allowed_in),
                Send("node", answer_out, HOST),
                Send("net", ack_in, HOST),
                Send("net", f.tcp(world, host, "S", 40000, 10250), DropReason.POLICY, (NONE_IN,)),
                Send("node", syn_out, DropReason.POLICY, (NONE_OUT,)),
            ),
            CLOSED,
            (ssh,),
        ),
        Case(
            "out: allowed, and the answers",
            (
                Send("node", syn_out, HOST, allowed_out),
                Send("net", answer_in, HOST),
                Send("node", ack_out, HOST),
                Send("net", f.tcp(world, host, "S", 80, 40000), DropReason.POLICY, (NONE_IN,)),
                Send("net", syn_in, DropReason.POLICY, (NONE_IN,)),
            ),
            CLOSED,
            (web,),
        ),
        Case(
            "in: an explicit denial",
            (Send("net", syn_in, DropReason.POLICY_DENY, ("ingress POLICY_DENY match=2 rule=1",)),),
            {"H": 0},
            (ssh._replace(deny=True),),
        ),
        Case(
            "in: peers by what they are",
            (
                Send("net", f.tcp(f.r, host, "S"), HOST, ("ingress allow match=1 rule=3", "new")),
                Send("net", f.tcp(f.cidr, host, "S"), HOST, ("ingress allow match=1 rule=4", "new")),
                Send("net", f.tcp(world, host, "S"), DropReason.POLICY, (NONE_IN,)),
            ),
            CLOSED,
            (let(IN, R_IDENTITY, rule=3), let(IN, CIDR, rule=4)),
        ),
        Case(
            "out: to a pod elsewhere",
            (
                Send("node", f.tcp(host, f.r, "S"), HOST, ("egress allow match=1 rule=3", "new")),
                Send("net", f.tcp(f.r, host, "SA", 80, 40000), HOST),
                Send("node", f.tcp(host, f.cidr, "S"), DropReason.POLICY, (NONE_OUT,)),
            ),
            CLOSED,
            (let(OUT, R_IDENTITY, rule=3),),
        ),
        Case(
            "echo, both ways",
            (
                Send("net", f.ping(world, host), HOST, ("ingress allow match=2 rule=5", "new")),
                Send("node", f.pong(host, world), HOST),
                Send("node", f.ping(host, world), DropReason.POLICY, (NONE_OUT,)),
                Send("net", f.pong(world, host, 9), DropReason.POLICY, (NONE_IN,)),
            ),
            CLOSED,
            (let(IN, there, f.icmp, f.echo, 5),),
        ),
        Case(
            "an error about what it sent",
            (
                Send("node", syn_out, HOST, allowed_out),
                Send("net", f.error(f.r, host, syn_out), HOST),
                Send("net", f.error(f.r, host, f.tcp(host, world, "S", 1, 2)), DropReason.POLICY, (NONE_IN,)),
            ),
            CLOSED,
            (web,),
        ),
        Case(
            "its error about what came",
            (
                Send("net", f.udp(world, host), HOST, ("ingress allow match=2 rule=6", "new")),
                Send("node", f.error(host, world, f.udp(world, host)), HOST),
                Send("node", f.error(host, world, f.udp(world, host, 1, 2)), DropReason.POLICY, (NONE_OUT,)),
            ),
            CLOSED,
            (let(IN, there, 17, 53, 6),),
        ),
        Case(
            "fragments",
            tuple(
                Send(at, packet, HOST, told if first else ())
                for at, ends, told in (
                    ("net", (world, host), ("ingress allow match=2 rule=6", "new")),
                    ("node", (host, f.r), ("egress allow match=1 rule=7", "new")),
                )
                for first, packet in zip(
                    (True, False), f.fragments(*ends, UDP(sport=5, dport=53) / Raw(bytes(40))), strict=True
                )
            ),
            CLOSED,
            (let(IN, there, 17, 53, 6), let(OUT, R_IDENTITY, rule=7)),
        ),
        Case(
            "a fragment without its first",
            (
                Send(
                    "net",
                    f.fragments(world, host, UDP(sport=5, dport=53) / Raw(bytes(40)))[1],
                    DropReason.FRAGMENT_NOT_FOUND,
                ),
            ),
            {"H": 0},
        ),
        Case(
            "policy changes: cut, and let through again",
            (
                Send("net", syn_in, HOST, allowed_in),
                change(CLOSED),
                Send("node", answer_out, DropReason.POLICY, (NONE_IN,)),
                Send("net", ack_in, DropReason.POLICY, (NONE_IN,)),
                change(CLOSED, (ssh,)),
                Send("node", answer_out, HOST),
                RAISE,
                Send("net", ack_in, HOST),
            ),
            CLOSED,
            (ssh,),
        ),
        Case(
            "audit",
            (
                Send("net", syn_in, HOST, ("ingress audited POLICY match=0 rule=0", "new")),
                Send("node", answer_out, HOST),
                Send("node", syn_out, HOST, ("egress audited POLICY match=0 rule=0", "new")),
            ),
            {"H": DENY_BOTH | EndpointFlag.AUDIT},
        ),
        Case(
            "another set is tried out",
            (
                Send("net", syn_in, HOST, ("ingress audited POLICY match=0 rule=0", "new")),
                Send("net", f.ping(world, host), HOST, ("ingress audited POLICY match=0 rule=0", "new")),
                Send("node", syn_out, HOST, NEW),
            ),
            {"H": EndpointFlag.AUDIT_INGRESS},
        ),
        Case(
            "an address that no map knows",
            (
                Send("net", f.tcp(world, unlisted, "S", 40000, SSH), HOST, allowed_in),
                Send("node", f.tcp(unlisted, world, "SA", SSH, 40000), HOST),
                Send("net", f.tcp(world, unlisted, "S"), DropReason.POLICY, (NONE_IN,)),
                Send("node", f.tcp(unlisted, world, "S", 1, 2), DropReason.POLICY, (NONE_OUT,)),
            ),
            CLOSED,
            (ssh,),
        ),
        Case(
            "before the entry under no address: the known ones are judged",
            (
                Do(unnamed),
                Send("net", syn_in, DropReason.POLICY, (NONE_IN,)),
                Send("node", syn_out, DropReason.POLICY, (NONE_OUT,)),
                Send("net", f.tcp(world, unlisted, "S"), STACK),
                Send("node", f.tcp(unlisted, world, "S"), STACK),
            ),
            CLOSED,
        ),
        Case(
            "a source that is no address of its own",
            (Send("node", f.tcp(f.cidr, world, "S"), DropReason.POLICY, (NONE_OUT,)),),
            CLOSED,
        ),
        Case(
            "spoofed from the wire",
            (
                Send("net", f.tcp(host, host, "S"), DropReason.INVALID_SOURCE_IP),
                Send("net", f.tcp(f.a, host, "S"), DropReason.INVALID_SOURCE_IP),
            ),
            {"H": 0},
        ),
        Case(
            "malformed",
            (
                Send("net", f.tcp(world, host, "SF"), DropReason.CT_INVALID_HEADER),
                Send("node", f.tcp(host, world, "SF"), DropReason.CT_INVALID_HEADER),
            ),
            {"H": 0},
        ),
        Case(
            "protocols without ports: a rule without ports",
            (
                Send("net", plain(f, world, host, 47), HOST, ("ingress allow match=1 rule=8", "new")),
                Send("node", plain(f, host, world, 47), HOST),
                Send("net", plain(f, f.cidr, host, 47), DropReason.POLICY, (NONE_IN,)),
                Send("node", plain(f, host, f.r, 50), DropReason.POLICY, (NONE_OUT,)),
            ),
            CLOSED,
            (let(IN, there, rule=8), let(IN, CIDR, 6, 80, 9)),
        ),
        Case(
            "protocols without ports: nothing enforced",
            (
                Send("net", plain(f, world, host, 50), HOST, NEW),
                Send("node", plain(f, host, f.r, 112), HOST, NEW),
            ),
            {"H": 0},
        ),
        Case(
            "ICMP of the other family",
            (Send("net", plain(f, world, host, 59 - f.icmp), DropReason.UNKNOWN_L4),),
            {"H": 0},
        ),
    ]


def plain(f: Family, source: str, destination: str, protocol: int) -> Any:
    """A packet of a protocol that has no ports."""
    return f.ip(source, destination, **f.next(protocol)) / Raw(bytes(24))


CASES = [Case(f"{f.name} node: {c.id}", c.steps, c.flags, c.entries) for f in FAMILIES for c in wire(f)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_host(shared_world: World, case: Case) -> None:
    play(shared_world, case)


def test_events_name_the_node(shared_world: World) -> None:
    """Whose policy was asked, and who is at both ends."""
    shared_world.reset()
    shared_world.enforce(CLOSED)
    for at, packet, ends in (
        ("net", V4.tcp(V4.world, V4.host, "S"), (V4.world_identity, 1)),
        ("node", V6.tcp(V6.host, V6.r, "S"), (1, R_IDENTITY)),
        ("B", V4.tcp(V4.b, V4.host, "S"), (B.identity, 1)),
        (">B", V6.tcp(V6.host, V6.b, "S"), (1, B.identity)),
    ):
        verdict, drop = send(shared_world, at, packet).events
        for event in (verdict, drop):
            assert (event.source_identity, event.destination_identity, event.endpoint) == (*ends, NODE.id)
