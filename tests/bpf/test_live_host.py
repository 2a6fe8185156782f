"""The host firewall with real traffic: what only the kernel's own paths show.

Node 1 is an endpoint whose ingress and egress are closed but for what a test lets through.
"""

import subprocess
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from cirri.layout import EndpointFlag, IpcacheKey, IpcacheValue, PolicyDirection
from cirri.testing.datapath import HOST4, HOST6, NEXT_HOP4, NEXT_HOP6, R4, R6, R_IDENTITY, A, B, Entry, World
from cirri.testing.packets import told
from cirri.testing.two_nodes import TwoNodes

IN, OUT = PolicyDirection.INGRESS, PolicyDirection.EGRESS
OTHER_NODE = 6
MASQUERADE = """
add table ip cirri_test
add chain ip cirri_test post { type nat hook postrouting priority 100; }
add rule ip cirri_test post oifname "uplink" ip saddr 10.52.0.0/24 masquerade
"""


def close(world: World, *entries: Entry) -> None:
    """The node's policy allows *entries* alone."""
    world.policy.clear()
    world.enforce({"H": EndpointFlag.ENFORCE_INGRESS | EndpointFlag.ENFORCE_EGRESS}, entries)
    world.raise_epoch()


@pytest.fixture
def node(nodes: TwoNodes) -> Iterator[World]:
    """Node 1, closed."""
    world = nodes.worlds[0]
    for address in (NEXT_HOP4, NEXT_HOP6):
        world.ipcache.put(IpcacheKey.of(ip_network(address)), IpcacheValue(identity=OTHER_NODE))
    world.ct.clear()
    close(world)
    yield world
    world.ct.clear()


ASKED = {
    "from the other node, v4": ("n2", HOST4, Entry("H", IN, OTHER_NODE)),
    "from the other node, v6": ("n2", HOST6, Entry("H", IN, OTHER_NODE)),
    "to the other node, v4": ("n1", NEXT_HOP4, Entry("H", OUT, OTHER_NODE)),
    "to the other node, v6": ("n1", NEXT_HOP6, Entry("H", OUT, OTHER_NODE)),
    "from a pod elsewhere, v4": ("R", HOST4, Entry("H", IN, R_IDENTITY)),
    "from a pod elsewhere, v6": ("R", HOST6, Entry("H", IN, R_IDENTITY)),
    "to a pod elsewhere, v4": ("n1", R4, Entry("H", OUT, R_IDENTITY)),
    "to a pod elsewhere, v6": ("n1", R6, Entry("H", OUT, R_IDENTITY)),
    "from its pod, v4": ("A", HOST4, Entry("H", IN, A.identity)),
    "from its pod, v6": ("A", HOST6, Entry("H", IN, A.identity)),
    "to its pod, v4": ("n1", A.address4, Entry("H", OUT, A.identity)),
    "to its pod, v6": ("n1", A.address6, Entry("H", OUT, A.identity)),
}
"""Who asks whom, and the entry that it takes."""


@pytest.mark.parametrize("name", ASKED)
def test_closed_and_opened(nodes: TwoNodes, node: World, name: str) -> None:
    """Neighbours are found all the same, and answers need no rule."""
    where, address, entry = ASKED[name]
    node.events()
    assert nodes.ping(where, address, wait=0.3) == "silence"
    assert "drop" in {told(event).split()[0] for event in node.events()}
    close(node, entry)
    assert nodes.ping(where, address) == f"{address} reply", node.events()


@pytest.mark.parametrize(
    "to", [("A", R4), ("A", R6), ("R", B.address4), ("R", B.address6), ("A", B.address4)]
)
def test_pods_are_not_the_node(nodes: TwoNodes, node: World, to: tuple[str, str]) -> None:
    node.events()
    assert nodes.ping(*to) == f"{to[1]} reply"
    assert {event.endpoint for event in node.events()} <= {A.id, B.id}


def test_the_node_reaches_itself(nodes: TwoNodes, node: World) -> None:
    for address in (HOST4, HOST6, "127.0.0.1", "::1"):
        assert nodes.ping("n1", address) == f"{address} reply"


def test_an_address_that_no_map_knows(nodes: TwoNodes, node: World) -> None:
    """Its own link-local one, and one that somebody gave to another device."""
    shown = nodes.run("n1", "ip", "-6", "-o", "addr", "show", "dev", "uplink", "scope", "link").stdout
    link_local = shown.split()[3].split("/")[0]
    nodes.ip("n1", "addr add 192.0.2.77/32 dev lo")
    nodes.ip("n2", f"route add 192.0.2.77/32 via {HOST4}")
    try:
        for where, address in (("n2", f"{link_local}%uplink"), ("n2", "192.0.2.77"), ("A", "192.0.2.77")):
            close(node)
            assert nodes.ping(where, address, wait=0.3) == "silence", address
            close(node, *(Entry("H", IN, peer) for peer in (OTHER_NODE, A.identity, 10)))
            assert nodes.ping(where, address).endswith(" reply"), (address, node.events())
    finally:
        nodes.ip("n2", f"route del 192.0.2.77/32 via {HOST4}")
        nodes.ip("n1", "addr del 192.0.2.77/32 dev lo")


def test_masqueraded_pods_get_their_answers(nodes: TwoNodes, node: World) -> None:
    """They come to the node's own address, where nothing is let in."""
    # The other node takes neither A's address nor the next hop from ipcache: the stack forwards.
    nodes.ip("n2", "addr add 192.0.2.88/32 dev lo")
    nodes.ip("n1", f"route add 192.0.2.88/32 via {NEXT_HOP4}")
    subprocess.run(
        ["nsenter", f"--net=/run/netns/{nodes.ns('n1')}", "nft", "-f", "-"],
        input=MASQUERADE,
        text=True,
        check=True,
        timeout=10,
    )
    try:
        assert nodes.ping("A", "192.0.2.88") == "192.0.2.88 reply"
        assert nodes.ping("n2", HOST4, wait=0.3) == "silence"
    finally:
        nodes.run("n1", "nft", "delete", "table", "ip", "cirri_test")
        nodes.ip("n1", f"route del 192.0.2.88/32 via {NEXT_HOP4}")
        nodes.ip("n2", "addr del 192.0.2.88/32 dev lo")
