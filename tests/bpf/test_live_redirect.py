"""Redirects to proxies with real traffic: sockets, policy routing and both sides of a connection.

::

    A ──┐        E  egress proxy, port 11000          ┌── R
    B ──┤ node 1 I  ingress proxy, port 10100         ┤ node 2
        └── its own processes                         └── its own processes

Every server listens at port 80.  What it answers names its client and the proxies that were passed.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from cirri.layout import EndpointFlag, Mark, PolicyDirection, RuntimeFlag
from cirri.testing.datapath import HOST4, HOST6, R4, R6, A, B, Entry, World
from cirri.testing.transparent import client, proxy, server
from cirri.testing.two_nodes import TwoNodes

IN, OUT = PolicyDirection.INGRESS, PolicyDirection.EGRESS
EGRESS_PORT, INGRESS_PORT, PORT = 11000, 10100, 80
PROTOCOLS = {"tcp": 6, "udp": 17}
ROUTING = (
    "rule add fwmark 0x200/0xf00 lookup 2004 pref 9",
    "-6 rule add fwmark 0x200/0xf00 lookup 2004 pref 9",
    "route add local default dev lo table 2004",
    "-6 route add local default dev lo table 2004",
)
SYSCTLS = "echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter; for d in va vb; do "
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
        yield nodes


def redirect(pod: str, direction: PolicyDirection, protocol: int) -> Entry:
    """Whatever comes or goes to port 80 is for the proxy of that direction."""
    port = INGRESS_PORT if direction == IN else EGRESS_PORT
    return Entry(pod, direction, protocol=protocol, port=PORT, bits=16, priority=1, proxy_port=port, rule=7)


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
        Way(f"both on one node, {b}", "A", b, (("A", OUT), ("B", IN)), f"{a} I|E|")
        for a, b in ((A.address4, B.address4), (A.address6, B.address6))
    ),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.id)
def test_ways(proxies: TwoNodes, way: Way, protocol: str) -> None:
    world = proxies.worlds[0]
    world.ct.clear()
    enforce(world, *(redirect(*subject, PROTOCOLS[protocol]) for subject in way.subjects))
    world.counted_since()
    with client(proxies.ns(way.where), protocol, way.to, PORT) as connection:
        assert [connection.ask(text) for text in ("one", "two")] == [
            f"{way.answer}one",
            f"{way.answer}two",
        ], (
            world.counted_since(),
            list(world.events()),
            world.ct.to_dict(),
        )
