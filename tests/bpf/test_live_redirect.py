"""Redirects to proxies with real traffic: sockets, policy routing and both sides of a connection.

::

    A ──┐        E  egress proxy, port 11000          ┌── R
    B ──┤ node 1 I  ingress proxy, port 10100         ┤ node 2
        └── its own processes                         └── its own processes

Every server listens at port 80.  What it answers names its client and the proxies that were passed.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import product
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from cirri.layout import (
    CtFlag,
    EndpointFlag,
    LbScope,
    Mark,
    PolicyDirection,
    RuntimeFlag,
    address16,
)
from cirri.testing.datapath import HOST4, HOST6, NEXT_HOP4, NEXT_HOP6, R4, R6, A, B, Entry, World
from cirri.testing.fronts import serve
from cirri.testing.packets import told
from cirri.testing.transparent import DIGEST_CLIENT, client, proxy, server
from cirri.testing.two_nodes import TwoNodes

IN, OUT = PolicyDirection.INGRESS, PolicyDirection.EGRESS
EGRESS_PORT, INGRESS_PORT, SAME, NOBODY, PORT = 11000, 10100, 11001, 11999, 80
PROTOCOLS = {"tcp": 6, "udp": 17}
ROUTING = (
    "rule add fwmark 0x200/0xf00 lookup 2004 pref 9",
    "-6 rule add fwmark 0x200/0xf00 lookup 2004 pref 9",
    "route add local default dev lo table 2004",
    "-6 route add local default dev lo table 2004",
)
SYSCTLS = "for d in all default; do echo 0 >/proc/sys/net/ipv4/conf/$d/rp_filter; done; for d in va vb; do "
SYSCTLS += (
    "echo 0 >/proc/sys/net/ipv4/conf/$d/rp_filter; echo 1 >/proc/sys/net/ipv4/conf/$d/accept_local; done"
)


@pytest.fixture(scope="module")
def proxies(nodes: TwoNodes) -> Iterator[TwoNodes]:
    """Servers everywhere, and both proxies on node 1."""
    for command in ROUTING:
        nodes.ip("n1", command)
    nodes.run("n1", "sh", "-c", SYSCTLS)
    config = nodes.worlds[0].runtime[0]
    nodes.worlds[0].runtime.put(0, replace(config, flags=config.flags | RuntimeFlag.PROXIES))
    with ExitStack() as stack:
        for where in ("A", "B", "R", "n1", "n2"):
            stack.enter_context(server(nodes.ns(where), PORT))
        stack.enter_context(proxy(nodes.ns("n1"), "E", EGRESS_PORT, Mark.EGRESS_CLIENT, Mark.EGRESS_SERVER))
        stack.enter_context(
            proxy(nodes.ns("n1"), "I", INGRESS_PORT, Mark.INGRESS_CLIENT, Mark.INGRESS_SERVER)
        )
        stack.enter_context(
            proxy(nodes.ns("n1"), "S", SAME, Mark.EGRESS_CLIENT, Mark.EGRESS_SERVER, same_port=True)
        )
        yield nodes


@pytest.fixture
def world(proxies: TwoNodes) -> World:
    """Node 1, where no connection is known."""
    made = proxies.worlds[0]
    made.ct.clear()
    made.events()
    return made


def redirect(
    pod: str, direction: PolicyDirection, protocol: str, proxy_port: int = 0, port: int = PORT
) -> Entry:
    """Whatever comes or goes to that port is for a proxy, by default the one of its direction."""
    proxy_port = proxy_port or (INGRESS_PORT if direction == IN else EGRESS_PORT)
    number = PROTOCOLS[protocol]
    return Entry(pod, direction, 0, number, port, 16, rule=7, priority=1, proxy_port=proxy_port)


def enforce(world: World, *entries: Entry) -> None:
    """A and B may do what *entries* say, and nothing else in a direction that one is about."""
    flags = {"A": EndpointFlag(0), "B": EndpointFlag(0)}
    for entry in entries:
        ingress = entry.direction == IN
        flags[entry.pod] |= EndpointFlag.ENFORCE_INGRESS if ingress else EndpointFlag.ENFORCE_EGRESS
    world.policy.clear()
    world.enforce(flags, entries)
    world.raise_epoch()


class Way(NamedTuple):
    """Who asks whom, and what the answer begins with."""

    id: str
    where: str
    to: str
    subjects: tuple[tuple[str, PolicyDirection], ...]
    answer: str


WAYS = [
    *(
        Way(f"egress to a pod elsewhere, {r}", "A", r, (("A", OUT),), f"{a} E|")
        for a, r in ((A.address4, R4), (A.address6, R6))
    ),
    *(
        Way(f"egress to a pod here, {b}", "A", b, (("A", OUT),), f"{a} E|")
        for a, b in ((A.address4, B.address4), (A.address6, B.address6))
    ),
    *(
        Way(f"ingress from a pod elsewhere, {b}", "R", b, (("B", IN),), f"{r} I|")
        for r, b in ((R4, B.address4), (R6, B.address6))
    ),
    *(
        Way(f"ingress from a pod here, {b}", "A", b, (("B", IN),), f"{a} I|")
        for a, b in ((A.address4, B.address4), (A.address6, B.address6))
    ),
    *(
        Way(f"ingress from the node, {b}", "n1", b, (("B", IN),), f"{h} I|")
        for h, b in ((HOST4, B.address4), (HOST6, B.address6))
    ),
    *(
        Way(f"egress to its node, {h}", "A", h, (("A", OUT),), f"{a} E|")
        for a, h in ((A.address4, HOST4), (A.address6, HOST6))
    ),
    *(
        Way(f"both on one node, {b}", "A", b, (("A", OUT), ("B", IN)), f"{a} I|E|")
        for a, b in ((A.address4, B.address4), (A.address6, B.address6))
    ),
]


AWAY = [way for way in WAYS if "elsewhere" in way.id]


def answers(nodes: TwoNodes, way: Way, protocol: str) -> list[str]:
    """What is answered to *one* and *two* on one connection."""
    world = nodes.worlds[0]
    world.ct.clear()
    enforce(world, *(redirect(*subject, protocol) for subject in way.subjects))
    with client(nodes.ns(way.where), protocol, way.to, PORT) as connection:
        return [connection.ask(text) for text in ("one", "two")]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.id)
def test_ways(proxies: TwoNodes, world: World, way: Way, protocol: str) -> None:
    expected = [f"{way.answer}{text}" for text in ("one", "two")]
    assert answers(proxies, way, protocol) == expected, (world.events(), world.ct.to_dict())


def test_what_is_known_and_told(proxies: TwoNodes, world: World) -> None:
    """Of a redirected connection: both legs, whose ports are the same here, one of them new, and the port."""
    enforce(world, redirect("A", OUT, "tcp", SAME))
    with client(proxies.ns("A"), "tcp", R4, PORT, local_port=23456) as connection:
        assert connection.ask("one") == f"{A.address4} S|one"
        known = [
            item for item in world.ct.to_dict().items() if 23456 in (item[0].low_port, item[0].high_port)
        ]
        events = [told(event) for event in world.events() if event.source_port == 23456]
    legs = {key.leg: CtFlag(value.flags) for key, value in known}
    assert legs.keys() == {0, 1}
    assert CtFlag.REDIRECTED | CtFlag.ESTABLISHED in legs[0]
    assert CtFlag.ESTABLISHED in legs[1]
    assert CtFlag.REDIRECTED not in legs[1]
    assert events == [f"egress allow match=3 rule=7 proxy={SAME}", "new"]


PLAIN, PROXIED = Entry("A", OUT, 0, 6, PORT, 16, rule=8), redirect("A", OUT, "tcp")
SHUT = Entry("A", OUT, 0, 6, 9, 16)


class Change(NamedTuple):
    """A connection of A to R, and what becomes of it when its policy changes."""

    id: str
    before: Entry
    first: str
    after: Entry
    second: str


CHANGES = [
    Change(
        "stays with its proxy", redirect("A", OUT, "tcp"), f"{A.address4} E|one", PLAIN, f"{A.address4} E|two"
    ),
    Change("is cut", PROXIED, f"{A.address4} E|one", SHUT, "silence"),
    Change("is given to a proxy", PLAIN, f"{A.address4} one", PROXIED, "ConnectionResetError"),
    Change("nobody listens", redirect("A", OUT, "tcp", NOBODY), "silence", PLAIN, "gone"),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.id)
def test_changes_of_policy(proxies: TwoNodes, world: World, change: Change) -> None:
    enforce(world, change.before)
    with client(proxies.ns("A"), "tcp", R4, PORT, wait=0.5) as connection:
        assert connection.ask("one") == change.first, world.events()
        enforce(world, change.after)
        assert connection.ask("two") in {change.second, ""}, world.events()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("to", [R4, B.address4, R6])
def test_a_proxy_with_its_clients_port(proxies: TwoNodes, world: World, to: str, protocol: str) -> None:
    """Both connections look alike on the wire."""
    enforce(world, redirect("A", OUT, protocol, SAME))
    own = A.address6 if ":" in to else A.address4
    with client(proxies.ns("A"), protocol, to, PORT) as connection:
        assert [connection.ask(text) for text in ("one", "two")] == [f"{own} S|one", f"{own} S|two"]


@pytest.mark.parametrize("to", [R4, R6, B.address4, B.address6])
def test_an_error_is_told_the_proxy(proxies: TwoNodes, world: World, to: str) -> None:
    """ICMP about what it sent in the client's name."""
    enforce(world, redirect("A", OUT, "udp", port=81))
    with client(proxies.ns("A"), "udp", to, 81) as connection:
        assert connection.ask("one") == "refused", world.events()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("to", [NEXT_HOP4, NEXT_HOP6])
def test_out_of_the_cluster(proxies: TwoNodes, world: World, to: str, protocol: str) -> None:
    """What the proxy sends is masqueraded as the pod's own would be."""
    before = world.runtime[0]
    flags = before.flags | RuntimeFlag.MASQUERADE4 | RuntimeFlag.MASQUERADE6
    world.runtime.put(0, replace(before, flags=flags, nat4=address16(HOST4), nat6=address16(HOST6)))
    try:
        enforce(world, redirect("A", OUT, protocol))
        own = HOST6 if ":" in to else HOST4
        with client(proxies.ns("A"), protocol, to, PORT) as connection:
            assert [connection.ask(text) for text in ("one", "two")] == [f"{own} E|one", f"{own} E|two"]
    finally:
        world.runtime.put(0, replace(before, epoch=world.runtime[0].epoch + 1))


def large(nodes: TwoNodes, ways: Sequence[Way]) -> list[str]:
    """On which ways 2 MB of TCP, in large segments, do not arrive as they were sent."""
    wrong = []
    for way in ways:
        enforce(nodes.worlds[0], *(redirect(*subject, "tcp", port=7000) for subject in way.subjects))
        if nodes.run(way.where, sys.executable, "-S", "-c", DIGEST_CLIENT, way.to, check=False).returncode:
            wrong.append(way.id)
    return wrong


def test_streams(proxies: TwoNodes) -> None:
    assert large(proxies, WAYS[::2]) == []


FRONT = [("A", "192.0.2.80", "A", OUT), ("A", "2001:db8:3::80", "A", OUT), ("A", "192.0.2.80", "B", IN)]
FRONT += [("n2", HOST4, "B", IN), ("n2", HOST6, "B", IN)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("where", "to", "subject", "direction"), FRONT)
def test_by_a_frontend(
    proxies: TwoNodes,
    world: World,
    where: str,
    to: str,
    subject: str,
    direction: PolicyDirection,
    protocol: str,
) -> None:
    """The client hears from the frontend that it asked; the proxy knows the backend."""
    scope, six = (LbScope.INTERNAL if where == "A" else LbScope.EXTERNAL), ":" in to
    serve(to, 30080, B.address6 if six else B.address4, scope=scope, bind=PORT).what(world)
    before = world.runtime[0]
    world.runtime.put(0, replace(before, flags=before.flags | RuntimeFlag.POD_SERVICES))
    try:
        enforce(world, redirect(subject, direction, protocol))
        name = "E" if direction == OUT else "I"
        own = {"A": (A.address4, A.address6), "n2": (NEXT_HOP4, NEXT_HOP6)}[where][six]
        with client(proxies.ns(where), protocol, to, 30080) as connection:
            assert [connection.ask(text) for text in ("one", "two")] == [
                f"{own} {name}|one",
                f"{own} {name}|two",
            ]
    finally:
        world.runtime.put(0, replace(before, epoch=world.runtime[0].epoch + 1))
        for each in world.lb.values():
            each.clear()


def test_the_nodes_own_policy(proxies: TwoNodes, world: World) -> None:
    """It is asked about what a pod sends to its node, and not about what proxies send in pods' names."""
    before = world.runtime[0]
    pods = [
        Way("", "A", R4, (("A", OUT),), f"{A.address4} E|"),
        Way("", "R", B.address4, (("B", IN),), f"{R4} I|"),
    ]
    own = Way("", "A", HOST4, (("A", OUT),), f"{A.address4} E|")
    closed = {"H": EndpointFlag.ENFORCE_INGRESS | EndpointFlag.ENFORCE_EGRESS}
    found = []
    try:
        for entries, way in product(((), (Entry("H", IN, A.identity),)), (*pods, own)):
            enforce(world, redirect(*way.subjects[0], "tcp"))
            world.enforce(closed, entries)
            flags = before.flags | RuntimeFlag.HOST_FIREWALL
            world.runtime.put(0, replace(before, flags=flags, epoch=world.runtime[0].epoch + 1))
            with client(proxies.ns(way.where), "tcp", way.to, PORT, wait=0.5) as connection:
                found.append(connection.ask("one"))
    finally:
        world.runtime.put(0, replace(before, epoch=world.runtime[0].epoch + 1))
        for address in (HOST4, HOST6, "::"):
            world.endpoints.delete(address16(address))
    passed = [f"{way.answer}one" for way in pods]
    assert found == [*passed, "silence", *passed, f"{own.answer}one"]


def test_by_a_tunnel(proxies: TwoNodes) -> None:
    """The last one: there is no way back.  Programs make and open its packets, then the device does."""
    proxies.tunnel()
    wrong = {}
    for by in ("programs", "device"):
        for world in proxies.worlds if by == "device" else ():
            world.runtime.put(0, replace(world.runtime[0], tunnel_port=0))
        for way in WAYS if by == "programs" else AWAY:
            for protocol in PROTOCOLS:
                found = answers(proxies, way, protocol)
                if found != [f"{way.answer}{text}" for text in ("one", "two")]:
                    wrong[way.id, protocol, by] = found
        wrong.update({(way, "2 MB", by): [] for way in large(proxies, AWAY)})
    assert wrong == {}, proxies.worlds[0].events()
