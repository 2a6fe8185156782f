"""What observers are told of packets that pass: where to, when, and never more or fewer than there were."""

import os
import random
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from msgspec.structs import replace

from cirri.datapath.conntrack import REST, collect, remover
from cirri.layout import (
    DropReason,
    EndpointFlag,
    EventCounter,
    EventRecord,
    EventType,
    PolicyDirection,
    RuntimeFlag,
    TracePoint,
    TraceState,
    address16,
)
from cirri.layout.tracing import Tracing
from cirri.maps import SkBuff, test_run
from cirri.testing.datapath import NODE, TC_OK, TC_SHOT, A, B, Entry, World
from cirri.testing.packets import FAMILIES, FROM_NETWORK, FROM_POD, TO_POD, V4, Family, frame, send

IN, OUT = PolicyDirection.INGRESS, PolicyDirection.EGRESS
NEW, ESTABLISHED, REPLY, RELATED = (TraceState(n) for n in range(1, 5))
MEDIUM, LOW, NONE = Tracing(), Tracing(level="low"), Tracing(level="none")
QUIET = Tracing(interval_s=3600.0, tcp_flags=0)
LEVELS = pytest.mark.parametrize(
    "tracing", [NONE, LOW, MEDIUM, QUIET], ids=["none", "low", "medium", "first only"]
)


def trace(world: World, tracing: Tracing, **more: Any) -> None:
    """Observers want to be told so, in a world that knows nothing yet."""
    world.reset()
    config = replace(world.runtime[0], trace_interval=tracing.ticks, trace_flags=tracing.tcp_flags, **more)
    world.runtime.put(0, replace(config, flags=config.flags | tracing.switches))


def seen(event: EventRecord) -> str:
    """``to-endpoint new 2002 x1``: point, state, endpoint, packets; ``<`` against the way it was opened."""
    if event.type == EventType.DROP:
        return f"drop {event.reason}"
    if event.type == EventType.CONNECTION_CLOSED:
        return f"closed{' <' * (event.reply == 2)} x{event.packets}"
    state = TraceState(event.state).name.lower()
    point = TracePoint(event.point).name.lower().replace("_", "-")
    return f"{point} {state}{' <' * (event.reply == 2)} {event.endpoint} x{event.packets}"


def told(world: World, at: str, packet: Any) -> list[str]:
    """What is told of a packet, besides verdicts."""
    events = [e for e in send(world, at, packet).events if e.type != EventType.POLICY_VERDICT]
    length = len(frame(at, packet))
    for event in events:
        assert event.bytes == event.packets * length
        assert event.length == length
        assert event.ifindex
    return [seen(event) for event in events]


class Way(NamedTuple):
    """A packet and what is told of it; with level *none* also where it came from."""

    id: str
    at: str
    ends: tuple[str, str]
    """Names in :class:`Family`."""
    to: str
    came: str


WAYS = (
    Way("pod to a pod of this node", "A", ("a", "b"), f"to-endpoint new {B.id}", f"from-endpoint {A.id}"),
    Way("pod to another node", "A", ("a", "r"), f"to-network new {A.id}", f"from-endpoint {A.id}"),
    Way("pod to the world", "A", ("a", "world"), f"to-stack new {A.id}", f"from-endpoint {A.id}"),
    Way("pod to its node", "A", ("a", "host"), f"to-host new {A.id}", f"from-endpoint {A.id}"),
    Way("other node to a pod", "net", ("r", "b"), f"to-endpoint new {B.id}", f"from-network {B.id}"),
    Way("node to its pod", ">B", ("host", "b"), f"to-endpoint new {B.id}", f"from-host {B.id}"),
    Way("through the stack to a pod", "~B", ("world", "b"), f"to-endpoint new {B.id}", f"from-stack {B.id}"),
)
FIREWALL = (
    Way("node to others", "node", ("host", "node"), f"to-network new {NODE.id}", f"from-host {NODE.id}"),
    Way("others to the node", "net", ("node", "host"), f"to-host new {NODE.id}", f"from-network {NODE.id}"),
    Way("pod to its firewall", "A", ("a", "host"), f"to-host new {A.id}", f"from-endpoint {A.id}"),
    Way("firewall to its pod", ">B", ("host", "b"), f"to-endpoint new {B.id}", f"from-host {B.id}"),
)


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
@pytest.mark.parametrize("way", WAYS + FIREWALL, ids=lambda way: way.id)
def test_points(shared_world: World, way: Way, f: Family) -> None:
    """One event says where a packet went, whatever it passed; where it came from counts none."""
    source, destination = (getattr(f, name) for name in way.ends)
    for tracing in (MEDIUM, NONE):
        trace(shared_world, tracing)
        if way in FIREWALL:
            shared_world.set_pod("H", policy_id=0, flags=0)
            flags = RuntimeFlag.HOST_FIREWALL | tracing.switches
            shared_world.runtime.put(0, replace(shared_world.runtime[0], flags=int(flags)))
        events = [each.split() for each in _plain(shared_world, way.at, f.udp(source, destination))]
        *came, to = [" ".join(each) for each in events]
        assert to == f"{way.to} x1"
        point, endpoint = way.came.split()
        assert came == ([f"{point} unknown {endpoint} x0"] if tracing is NONE else [])


def _plain(world: World, at: str, packet: Any) -> list[str]:
    return [seen(event) for event in send(world, at, packet).events]


def test_a_tunnel(shared_world: World) -> None:
    trace(shared_world, MEDIUM, tunnel_ifindex=shared_world.ifindex["uplink"])
    assert told(shared_world, "A", V4.udp(V4.a, V4.r)) == [f"to-overlay new {A.id} x1"]


def test_identities_and_rules_of_a_reply(shared_world: World) -> None:
    trace(shared_world, MEDIUM)
    shared_world.enforce(
        {"B": EndpointFlag.ENFORCE_INGRESS}, (Entry("B", IN, A.identity, 6, 80, 16, rule=20),)
    )
    send(shared_world, "A", V4.tcp(V4.a, V4.b, "S"))
    (reply,) = send(shared_world, "B", V4.tcp(V4.b, V4.a, "SA", 80, 40000)).events
    assert (reply.source, reply.destination) == (address16(V4.b), address16(V4.a))
    assert (reply.source_port, reply.destination_port) == (80, 40000)
    assert (reply.source_identity, reply.destination_identity) == (B.identity, A.identity)
    assert (reply.rule, reply.tcp_flags, reply.direction, reply.reason) == (20, 0x12, 0, 0)


def tcp(f: Family, who: str, flags: str) -> tuple[str, Any]:
    """A segment of the one connection."""
    if who == "A":
        return "A", f.tcp(f.a, f.b, flags)
    return "B", f.tcp(f.b, f.a, flags, 80, 40000)


TALK = (("A", "S"), ("B", "SA"), ("A", "A"), ("A", "PA"), ("B", "A"), ("B", "PA"), ("A", "FA"), ("B", "FA"))
EACH = (
    [f"to-endpoint new {B.id} x1"],
    [f"to-endpoint reply < {A.id} x1"],
    [f"to-endpoint established {B.id} x1"],
    [f"to-endpoint established {B.id} x1"],
    [f"to-endpoint reply < {A.id} x1"],
    [f"to-endpoint reply < {A.id} x1"],
    [f"to-endpoint established {B.id} x1"],
    [f"to-endpoint reply < {A.id} x1", "closed x0"],
)
LEVEL_ROWS: Mapping[str, tuple[Tracing, tuple[list[str], ...]]] = {
    "low": (LOW, EACH),
    "none": (NONE, tuple([f"from-endpoint unknown {A.id if who == 'A' else B.id} x0", *rows]
                         for (who, _), rows in zip(TALK, EACH, strict=True))),
    "medium": (MEDIUM, (
        [f"to-endpoint new {B.id} x1"],
        [f"to-endpoint reply < {A.id} x1"],
        [], [], [], [],
        [f"to-endpoint established {B.id} x3"],
        [f"to-endpoint reply < {A.id} x3", "closed x0"],
    )),
    "psh too": (Tracing(tcp_flags=0x0F), (
        [f"to-endpoint new {B.id} x1"],
        [f"to-endpoint reply < {A.id} x1"],
        [],
        [f"to-endpoint established {B.id} x2"],
        [],
        [f"to-endpoint reply < {A.id} x2"],
        [f"to-endpoint established {B.id} x1"],
        [f"to-endpoint reply < {A.id} x1", "closed x0"],
    )),
    "no flags": (Tracing(tcp_flags=0), (
        [f"to-endpoint new {B.id} x1"],
        [f"to-endpoint reply < {A.id} x1"],
        [], [], [], [], [],
        ["closed x3", "closed < x3"],
    )),
    "nothing said": (QUIET, (
        [f"to-endpoint new {B.id} x1"],
        [f"to-endpoint reply < {A.id} x1"],
        [], [], [], [], [],
        ["closed x3", "closed < x3"],
    )),
}  # fmt: skip


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
@pytest.mark.parametrize("level", LEVEL_ROWS)
def test_levels(shared_world: World, level: str, f: Family) -> None:
    """Of each packet of a connection: what is told of it, and of how many."""
    tracing, expected = LEVEL_ROWS[level]
    trace(shared_world, tracing)
    assert [_plain(shared_world, *tcp(f, *each)) for each in TALK] == list(expected)


def test_the_interval_is_each_directions_own(shared_world: World) -> None:
    trace(shared_world, MEDIUM)
    there, back = V4.udp(V4.a, V4.b), V4.udp(V4.b, V4.a, 53, 5000)
    assert told(shared_world, "A", there) == [f"to-endpoint new {B.id} x1"]
    assert told(shared_world, "B", back) == [f"to-endpoint reply < {A.id} x1"]
    for direction, at, packet, expected in (
        ("forward_told", "A", there, f"to-endpoint established {B.id} x3"),
        ("reply_told", "B", back, f"to-endpoint reply < {A.id} x3"),
    ):
        for _ in range(2):
            assert told(shared_world, at, packet) == []
        ((key, value),) = shared_world.ct.to_dict().items()
        earlier = (getattr(value, direction) - MEDIUM.ticks) & 0xFFFFFFFF
        shared_world.ct.put(key, replace(value, **{direction: earlier}))
        assert told(shared_world, at, packet) == [expected]
        assert told(shared_world, at, packet) == []


def test_what_conntrack_does_not_keep_is_told_each_time(shared_world: World) -> None:
    trace(shared_world, QUIET)
    about = V4.udp(V4.b, V4.a, 53, 5000)
    for _ in range(2):
        assert told(shared_world, "A", V4.pong(V4.a, V4.b)) == [f"to-endpoint unknown {B.id} x1"]
        assert told(shared_world, "A", V4.tcp(V4.a, V4.b, "R")) == [f"to-endpoint unknown {B.id} x1"]
    send(shared_world, "B", about)
    for _ in range(2):
        found = told(shared_world, "A", V4.error(V4.a, V4.b, about))
        assert found == [f"to-endpoint related {B.id} x1"]


def test_a_packet_that_is_dropped_late_is_not_forwarded(shared_world: World) -> None:
    """Conntrack counted it already; the next that passes is the connection's first."""
    trace(shared_world, MEDIUM, uplink_ifindex=0)
    lost = told(shared_world, "A", V4.udp(V4.a, V4.r))
    assert lost == [f"drop {DropReason.HOST_NOT_READY.value}"]
    ((_, value),) = shared_world.ct.items()
    assert value.forward == (0, 0)
    shared_world.runtime.put(0, replace(shared_world.runtime[0], uplink_ifindex=shared_world.uplink))
    assert told(shared_world, "A", V4.udp(V4.a, V4.r)) == [f"to-network new {A.id} x1"]


def test_what_is_left_of_connections_that_are_over(shared_world: World) -> None:
    """The sweep has it told, in both directions, before it removes them."""
    trace(shared_world, QUIET)
    for at, packet in (
        ("A", V4.ping(V4.a, V4.b)),
        ("B", V4.pong(V4.b, V4.a)),
        ("A", V4.udp(V4.a, V4.world)),
        ("A", V4.udp(V4.a, V4.r)),
    ):
        for _ in range(3):
            send(shared_world, at, packet)
    send(shared_world, "A", V4.udp(V4.a, V4.host))
    shared_world.events()
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + 3600 * 10**9
    assert collect(shared_world.ct, now, (), remover(shared_world.programs[REST])) == 4
    events = shared_world.events()
    left = {
        (e.source, e.destination, e.protocol, e.source_port, e.destination_port, e.reply): e for e in events
    }
    a, b, r, world = map(address16, (V4.a, V4.b, V4.r, V4.world))
    assert {key: each.packets for key, each in left.items()} == {
        (a, b, 1, 7, 8, 1): 2,
        (b, a, 1, 7, 0, 2): 2,
        (a, world, 17, 5000, 53, 1): 2,
        (a, r, 17, 5000, 53, 1): 2,
    }
    assert {(e.type, e.length) for e in events} == {(EventType.CONNECTION_CLOSED, 0)}
    assert left[b, a, 1, 7, 0, 2].source_identity == B.identity


@pytest.mark.parametrize("meanwhile", ["nothing", "a packet"])
def test_what_lives_again_is_not_removed(shared_world: World, meanwhile: str) -> None:
    """Between the look at the table and the removal a connection goes on: it stays, it is
    known, and what it carries is told in the end."""
    world = shared_world
    trace(world, QUIET)
    packet = V4.udp(V4.a, V4.b)
    for _ in range(3):
        send(world, "A", packet)
    world.expire()
    remove = remover(world.programs[REST])

    def late(keys: bytes, now_ns: int) -> None:
        if keys and meanwhile == "a packet":
            events.extend(send(world, "A", packet).events)
        remove(keys, now_ns)

    events: list[EventRecord] = []
    collect(world.ct, time.monotonic_ns(), (), late)
    assert world.ct.count() == (meanwhile == "a packet")
    events += world.events()
    if meanwhile == "a packet":
        answer = send(world, "B", V4.udp(V4.b, V4.a, 53, 5000)).events
        assert [seen(event) for event in answer] == [f"to-endpoint reply < {A.id} x1"]
        collect(world.ct, 1 << 63, (), remove)
        events += world.events()
    assert sum(event.packets for event in events) == 2 + (meanwhile == "a packet")


# never more or fewer ----------------------------------------------------------

Ends = tuple[bytes, bytes]


@cache
def pool(f: Family) -> list[tuple[str, bytes]]:
    """Frames of anything, to anybody: some have policy against them, some no way, some no connection."""
    chance = random.Random(3)
    ends = {"A": (f.a, (f.b, f.r, f.world, f.host)), "B": (f.b, (f.a, f.r)), "net": (f.r, (f.a, f.b))}
    made = []
    for _ in range(150):
        at = chance.choice(list(ends))
        source, others = ends[at]
        other, port = chance.choice(others), chance.choice((80, 81, 40000))
        match chance.randrange(6):
            case 0:
                packet = f.udp(source, other, port, 53, size=chance.randrange(60))
            case 1:
                packet = f.ping(source, other, port)
            case 2:
                packet = f.pong(source, other, port)
            case 3:
                packet = f.error(source, other, f.udp(other, source, 53, 80))
            case _:
                flags = chance.choice(("S", "SA", "A", "PA", "FA", "R"))
                packet = f.tcp(source, other, flags, port, chance.choice((80, 81, 40000)))
        made.append((at, frame(at, packet)))
    return made


@LEVELS
def test_sums_are_what_was_sent(shared_world: World, tracing: Tracing) -> None:
    """Of each pair of ends: dropped, forwarded and left over make what was sent, packets and bytes; nothing
    is told twice, although some cross several points, and connections begin on others' ports."""
    world, chance = shared_world, random.Random(7)
    trace(world, tracing)
    world.enforce(
        {"B": EndpointFlag.ENFORCE_INGRESS, "A": EndpointFlag.ENFORCE_EGRESS},
        (
            Entry("B", IN, A.identity, 6, 80, 16, rule=1),
            Entry("A", OUT, 0, 6, 80, 16, rule=2),
            Entry("A", OUT, 0, 17, rule=3),
        ),
    )
    sent: Counter[Ends] = Counter()
    octets: Counter[Ends] = Counter()
    for number in range(2000):
        at, raw = chance.choice(pool(FAMILIES[number % 2]))
        if number % 100 == 0:
            config, uplink = world.runtime[0], chance.choice((0, world.uplink))
            world.runtime.put(0, replace(config, uplink_ifindex=uplink, epoch=config.epoch + 1))
        if number % 150 == 0:
            world.expire()
        run(world, FROM_NETWORK if at == "net" else FROM_POD, at, raw)
        sent[_ends(raw)] += 1
        octets[_ends(raw)] += len(raw)
    collect(world.ct, 1 << 63, (), remover(world.programs[REST]))
    events = world.events()
    assert {e.type for e in events} == {1, 3, 4, 5}
    found: Counter[Ends] = Counter()
    weighed: Counter[Ends] = Counter()
    for event in events:
        found[event.source, event.destination] += event.packets
        weighed[event.source, event.destination] += event.bytes
    assert +found == sent
    assert +weighed == octets


def run(world: World, section: str, at: str, raw: bytes, repeat: int = 1) -> int:
    """The action; nothing else is looked at."""
    assert world.apart is not None
    context = SkBuff(ifindex=world.uplink if at == "net" else world.ifindex[at[-1]])
    program = world.programs[section]
    return world.apart.call(lambda: test_run(program, raw, context=context, repeat=repeat).action)


def _ends(raw: bytes) -> Ends:
    if raw[12:14] == b"\x86\xdd":
        return raw[22:38], raw[38:54]
    mapped = bytes(10) + b"\xff\xff"
    return mapped + raw[26:30], mapped + raw[30:34]


class Stream(NamedTuple):
    """A packet that is sent again and again, and comes out as it went in."""

    section: str
    at: str
    packet: Any
    action: int


STREAMS = (
    Stream(FROM_POD, "A", V4.udp(V4.a, V4.world), TC_OK),
    Stream(FROM_POD, "A", V4.udp(V4.a, V4.world, 5000, 54), TC_SHOT),
    Stream(TO_POD, ">B", V4.udp(V4.host, V4.b, size=500), TC_OK),
    Stream(TO_POD, ">B", V4.tcp(V4.host, V4.b, "S"), TC_SHOT),
)
CPUS = os.sched_getaffinity(0)
MILLION = 1_000_000
AT_ONCE, MANY = 1000, 50_000
FIELDS = np.dtype({
    "names": ["source", "type", "packets", "bytes"],
    "formats": ["V16", "u1", "<u8", "<u8"],
    "offsets": [8, 52, 80, 88],
    "itemsize": EventRecord.size(),
})  # fmt: skip


@pytest.mark.parametrize("reader", ["reads", "is stopped"])
def test_a_million_packets(shared_world: World, reader: str) -> None:
    """Forwarded and dropped of each pod make what was sent; what had no room in the ring is counted."""
    world, rounds = shared_world, MILLION // (AT_ONCE * len(STREAMS))
    trace(world, Tracing(interval_s=0.05))
    world.enforce(
        {"A": EndpointFlag.ENFORCE_EGRESS, "B": EndpointFlag.ENFORCE_INGRESS},
        (Entry("A", OUT, 0, 17, 53, 16, rule=1), Entry("B", IN, 0, 17, 53, 16, rule=2)),
    )
    before = {counter: world.counted(counter) for counter in EventCounter}
    records: list[bytes] = []
    for _ in range(rounds):
        for stream in STREAMS:
            raw = frame(stream.at, stream.packet)
            assert run(world, stream.section, stream.at, raw, AT_ONCE) == stream.action
            if reader == "reads":
                records += world.ring.read()
    collect(world.ct, 1 << 63, (), remover(world.programs[REST], patience_s=0))
    records += world.ring.read()
    counted = {counter: world.counted(counter) - before[counter] for counter in EventCounter}
    rows = np.frombuffer(b"".join(records), FIELDS)
    each = rounds * AT_ONCE
    forgone = counted[EventCounter.FORGONE_PACKETS], counted[EventCounter.FORGONE_BYTES]
    assert counted[EventCounter.SUBMITTED] == len(rows)
    assert (forgone != (0, 0)) == (counted[EventCounter.LOST] > 0) == (reader == "is stopped")
    lengths = [len(frame(stream.at, stream.packet)) for stream in STREAMS]
    assert rows["packets"].sum() + forgone[0] == 4 * each
    assert rows["bytes"].sum() + forgone[1] == sum(lengths) * each
    dropped = rows["type"] == EventType.DROP
    if reader == "reads":
        for pod, (passed, denied) in (V4.a, lengths[:2]), (V4.host, lengths[2:]):
            of = rows["source"] == np.void(address16(pod))
            assert rows["packets"][of & dropped].sum() == rows["packets"][of & ~dropped].sum() == each
            assert rows["bytes"][of & dropped].sum() == denied * each
            assert rows["bytes"][of & ~dropped].sum() == passed * each
        assert 4 < (rows["type"] == EventType.TRACE).sum() < each
    else:
        assert counted[EventCounter.LOST] > each  # two for each that is dropped, once the ring is full


def test_cpus_that_have_packets_of_one_connection_lose_none(shared_world: World) -> None:
    """Of both directions at once, while each of them tells of what the other one counted."""
    world, rounds = shared_world, 30
    trace(world, Tracing(interval_s=0.01))
    ways = (
        ("~B", V4.udp(V4.world, V4.b)),
        ("~B", V4.udp(V4.world, V4.b)),
        ("B", V4.udp(V4.b, V4.world, 53, 5000)),
    )
    send(world, *ways[0])
    send(world, *ways[2])

    def work(number: int) -> None:
        at, packet = ways[number]
        os.sched_setaffinity(0, {sorted(CPUS)[number % len(CPUS)]})
        for _ in range(rounds):
            run(world, FROM_POD if at == "B" else TO_POD, at, frame(at, packet), MANY)

    events: list[EventRecord] = []
    with ThreadPoolExecutor(len(ways)) as pool:
        works = [pool.submit(work, number) for number in range(len(ways))]
        while not all(each.done() for each in works):
            events += world.events()
            time.sleep(0.005)
        for each in works:
            each.result()
    collect(world.ct, 1 << 63, (), remover(world.programs[REST]))
    events += world.events()
    sums: Counter[bytes] = Counter()
    for event in events:
        sums[event.source] += event.packets
    each_way = rounds * MANY
    assert sums == {address16(V4.world): 2 * each_way, address16(V4.b): each_way}
    assert len(events) > 4
