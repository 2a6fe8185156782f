"""Packets for the programs, and tables of what is to come of them.  For tests only: scapy is GPL-2.0-only.

A :class:`Case` is a row: the policy in force, then packets one after the other, each with the place
where it is met, where it has to go, and what observers have to be told.  Whatever the row does not
say is checked too: the whole packet, byte by byte, and every counter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from cirri.layout import (
    CtKey,
    CtValue,
    DropReason,
    EventRecord,
    EventType,
    PolicyDirection,
    TracePoint,
    TraceState,
)
from cirri.testing.datapath import (
    CIDR_IDENTITY,
    HOST4,
    HOST6,
    NEXT_HOP4,
    NEXT_HOP6,
    PODS,
    R4,
    R6,
    TC_OK,
    TC_REDIRECT,
    TC_SHOT,
    WORLD4,
    WORLD6,
    WORLD_IDENTITY4,
    WORLD_IDENTITY6,
    A,
    B,
    Entry,
    Result,
    World,
    routed,
)

UPLINK_MAC, NEIGHBOUR_MAC = "02:00:00:00:03:10", "02:00:00:00:03:11"
FROM_POD, TO_POD = "tc/from_pod", "tc/to_pod"
FROM_NETWORK, TO_NETWORK = "tc/from_network", "tc/to_network"
AWAY, STACK, LAST_HOP, SILENT, HOST = "away", "stack", "last hop", "silent", "host"
"""Where a packet goes besides pods: to the other node; on its way as if nobody had looked, because it is
the stack's or because it was allowed and may not go further; nowhere, without a word; from or to the node
itself, whose policy was asked."""
EGRESS_PLACES = frozenset({*PODS, "node", "through"})


@dataclass(frozen=True)
class Family:
    """IPv4 or IPv6: the same world, and how its packets are built."""

    version: int
    a: str
    b: str
    r: str
    """A pod of the other node."""
    node: str
    """The other node."""
    host: str
    """This node."""
    world: str
    cidr: str
    """An address of the world for which ipcache has a prefix."""
    world_identity: int
    icmp: int
    """Protocol number."""
    echo: int
    reply: int
    unreachable: int

    @property
    def name(self) -> str:
        """For ids of test cases."""
        return f"v{self.version}"

    def ip(self, source: str, destination: str, ttl: int = 64, **more: Any) -> Packet:
        """An IP header."""
        if self.version == 4:
            return IP(src=source, dst=destination, ttl=ttl, **more)
        return IPv6(src=source, dst=destination, hlim=ttl, **more)

    def tcp(self, source: str, destination: str, flags: str, *ports: int, **more: Any) -> Packet:
        """A TCP segment, from port 40000 to 80 unless *ports* say otherwise."""
        sport, dport = ports or (40000, 80)
        return self.ip(source, destination, **more) / TCP(sport=sport, dport=dport, flags=flags)

    def udp(self, source: str, destination: str, *ports: int, size: int = 8, **more: Any) -> Packet:
        """A UDP datagram, from port 5000 to 53 unless *ports* say otherwise."""
        sport, dport = ports or (5000, 53)
        return self.ip(source, destination, **more) / UDP(sport=sport, dport=dport) / Raw(b"u" * size)

    def sctp(self, source: str, destination: str) -> Packet:
        """An SCTP packet from port 5000 to 9000."""
        packet = self.ip(source, destination, **self.next(132))
        return packet / Raw(bytes(SCTP(sport=5000, dport=9000)) + bytes(4))

    def next(self, protocol: int) -> dict[str, int]:
        """The argument of :meth:`ip` that names the next header."""
        return {"proto" if self.version == 4 else "nh": protocol}

    def ping(self, source: str, destination: str, identifier: int = 7, **more: Any) -> Packet:
        """An echo request."""
        ip = self.ip(source, destination, **more)
        if self.version == 4:
            return ip / ICMP(type=8, id=identifier, seq=1) / Raw(b"ping")
        return ip / ICMPv6EchoRequest(id=identifier, seq=1, data=b"ping")

    def pong(self, source: str, destination: str, identifier: int = 7) -> Packet:
        """An echo reply."""
        ip = self.ip(source, destination)
        if self.version == 4:
            return ip / ICMP(type=0, id=identifier, seq=1) / Raw(b"ping")
        return ip / ICMPv6EchoReply(id=identifier, seq=1, data=b"ping")

    def error(self, source: str, destination: str, about: Packet, code: int = 1) -> Packet:
        """Destination unreachable, with the head of the packet *about*."""
        ip, head = self.ip(source, destination), Raw(bytes(about)[: 28 if self.version == 4 else 48])
        return ip / (ICMP(type=3, code=code) if self.version == 4 else ICMPv6DestUnreach(code=code)) / head

    def fragments(
        self, source: str, destination: str, more: Any, identifier: int = 99, size: int = 24
    ) -> tuple[Packet, Packet]:
        """*more* (UDP, TCP, ICMP with payload) in two fragments, the first with *size* bytes."""
        payload = bytes(self.ip(source, destination) / more)[20 if self.version == 4 else 40 :]
        number = (self.ip(source, destination) / more).payload
        protocol = {"UDP": 17, "TCP": 6}.get(number.name, self.icmp)
        if self.version == 4:
            first = IP(src=source, dst=destination, id=identifier, flags="MF", proto=protocol)
            second = IP(src=source, dst=destination, id=identifier, frag=size // 8, proto=protocol)
            return first / Raw(payload[:size]), second / Raw(payload[size:])
        ip = IPv6(src=source, dst=destination)
        first = ip / IPv6ExtHdrFragment(nh=protocol, id=identifier, m=1, offset=0)
        second = ip / IPv6ExtHdrFragment(nh=protocol, id=identifier, m=0, offset=size // 8)
        return first / Raw(payload[:size]), second / Raw(payload[size:])


V4 = Family(
    4, A.address4, B.address4, R4, NEXT_HOP4, HOST4, WORLD4, "203.0.113.77", WORLD_IDENTITY4, 1, 8, 0, 3
)
V6 = Family(
    6,
    A.address6,
    B.address6,
    R6,
    NEXT_HOP6,
    HOST6,
    WORLD6,
    "2001:db8:2::77",
    WORLD_IDENTITY6,
    58,
    128,
    129,
    1,
)
FAMILIES = (V4, V6)
CIDR = CIDR_IDENTITY


class Send(NamedTuple):
    """A packet and what has to come of it."""

    at: str
    """``A``, ``B``: leaves that pod; ``>A``, ``>B``: the node sends it there, ``~A``, ``~B``: it passes it
    on there; ``net``: comes by the uplink; ``node``: the node sends it by the uplink; ``through``: it passes
    it on by the uplink."""
    packet: Packet | bytes
    """What follows the Ethernet header; bytes: the whole frame."""
    to: str | bytes | DropReason
    """A pod, AWAY, STACK, LAST_HOP, SILENT, the frame it is answered with, or why it is dropped."""
    events: tuple[str, ...] = ()
    """As :func:`told` puts them; a drop's own event comes by itself."""


class Do(NamedTuple):
    """Something happens between two packets."""

    what: Callable[[World], object]


@dataclass(frozen=True)
class Case:
    """A row."""

    id: str
    steps: tuple[Send | Do, ...]
    flags: Mapping[str, int] = field(default_factory=dict)
    """Default deny, by pod: ``EndpointFlag``."""
    entries: tuple[Entry, ...] = ()

    def __str__(self) -> str:
        return self.id


def frame(at: str, packet: Packet | bytes) -> bytes:
    """The frame that carries *packet* at that place."""
    if isinstance(packet, bytes):
        return packet
    if at in PODS:
        ether = Ether(src=PODS[at].mac, dst=PODS[at].node_mac)
    elif at[0] in ">~":
        ether = Ether(src=PODS[at[1:]].node_mac, dst=PODS[at[1:]].mac)
    elif at == "net":
        ether = Ether(src=NEIGHBOUR_MAC, dst=UPLINK_MAC)
    else:
        ether = Ether(src=UPLINK_MAC, dst=NEIGHBOUR_MAC)
    return bytes(ether / packet)


def send(world: World, at: str, packet: Packet | bytes) -> Result:
    """Run the program of that place."""
    sent, came_by = frame(at, packet), world.uplink if at[0] in "~t" else 0
    if at[0] in ">~":
        return world.run(TO_POD, sent, world.ifindex[at[1:]], came_by)
    if at in PODS:
        return world.run(FROM_POD, sent, world.ifindex[at])
    return world.run(FROM_NETWORK if at == "net" else TO_NETWORK, sent, world.uplink, came_by)


def expect(world: World, step: Send) -> Result:
    """Run one step and compare everything that can be seen of it."""
    sent = frame(step.at, step.packet)
    result = send(world, step.at, step.packet)
    events = list(step.events)
    direction = 2 if step.at in EGRESS_PLACES else 1
    counted: dict[tuple[int, int], tuple[int, int]] = {(0, direction): (1, len(sent))}
    packet = sent
    if isinstance(step.to, DropReason):
        drops = [e for e in result.events if e.type == EventType.DROP]
        assert drops, f"action {result.action}, no drop told, {[told(e) for e in result.events]}"
        direction = drops[0].direction
        events.append(f"drop {step.to.name} {'ingress' if direction == 1 else 'egress'}")
        action, counted = TC_SHOT, {(int(step.to), direction): (1, len(sent))}
    elif isinstance(step.to, bytes):
        action, packet = TC_REDIRECT, step.to
        counted = {(0, direction): (1, len(packet))}
    elif step.to == SILENT:
        action, counted = TC_SHOT, {}
    elif step.to in (STACK, LAST_HOP, HOST):
        action = TC_OK
        if step.at in ("net", "node", "through") and step.to == STACK:
            counted = {}
    else:
        action, packet = TC_REDIRECT, routed(sent, PODS.get(step.to))
        if step.at[0] in ">~":
            action, packet = TC_OK, sent  # it is on its way already
    assert [told(e) for e in result.events if _is_news(e)] == events
    assert result.action == action
    if action != TC_SHOT:  # what nobody gets may have been on its way to somebody
        assert result.packet == packet
    assert result.metrics == counted
    return result


def _is_news(event: EventRecord) -> bool:
    """Rows speak of verdicts, and of how connections begin and end; test_trace.py speaks of the rest."""
    return event.type != EventType.TRACE or event.state == TraceState.NEW


def drop_name(number: int) -> str:
    """The name of a drop reason; its number if it has none."""
    return next((reason.name for reason in DropReason if reason == number), str(number))


def told(event: EventRecord) -> str:
    """An event in a few words: *new*, *egress allow match=2 rule=7*, *drop POLICY ingress*."""
    direction = PolicyDirection(event.direction).name.lower() if event.direction else ""
    reason = drop_name(event.reason) if event.reason else "allow"
    match event.type:
        case EventType.TRACE:
            return "new" if event.state == TraceState.NEW else f"trace {TracePoint(event.point).name}"
        case EventType.CONNECTION_CLOSED:
            return f"closed packets={event.packets}{' back' * (event.reply == 2)}"
        case EventType.POLICY_VERDICT:
            audited = "audited " if event.audited else ""
            proxy = f" proxy={event.proxy_port}" if event.proxy_port else ""
            return f"{direction} {audited}{reason} match={event.match} rule={event.rule}{proxy}"
        case _:
            return f"drop {reason} {direction}"


def play(world: World, case: Case) -> None:
    """Run a row in a world that knows nothing yet."""
    world.reset()
    world.enforce(case.flags, case.entries)
    for step in case.steps:
        if isinstance(step, Send):
            expect(world, step)
        else:
            step.what(world)


# steps between packets --------------------------------------------------------


def only(world: World) -> tuple[CtKey, CtValue]:
    """The one connection there is."""
    ((key, value),) = world.ct.to_dict().items()
    return key, value


def connections(count: int) -> Do:
    """So many are known."""

    def check(world: World) -> None:
        assert len(world.ct.to_dict()) == count

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
