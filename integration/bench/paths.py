"""The peers: what a packet crosses when no Cirri is there.  Each path has namespaces of its own.

Addresses repeat from path to path: namespaces never meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path as FilePath

from integration.bench.machine import forwarding, ip, namespaces, run

FAMILIES = (4, 6)


@dataclass(frozen=True, slots=True)
class Path:
    """A client and a server that can reach each other."""

    name: str
    client: str
    """Network namespace of the client."""
    server: str
    addresses: Mapping[int, str]
    """Of the server, by family (4, 6)."""
    frontends: Mapping[int, str] | None = None
    """What the client connects to, where that is a Service."""
    cgroup: FilePath | None = None
    """Of the client."""
    counters: Callable[[], Mapping[str, int]] | None = None
    """What a path of Cirri counted so far: the proof that traffic took it."""
    tidy: Callable[[], None] | None = None
    """Work of the path's services that falls between rounds."""
    before: Callable[[], None] | None = None
    """What makes it the one that is meant, where several are between the same ends."""


@contextmanager
def raw(name: str, slug: str) -> Iterator[Path]:
    """Two namespaces, one veth pair: what two pods could reach at best.  Also two nodes on one wire."""
    with namespaces(f"{slug}-c", f"{slug}-s") as (client, server):
        ip(client, f"link add eth0 type veth peer name eth0 netns {server}")
        _host(client, "10.9.0.2/24", "fd00:9::2/64")
        _host(server, "10.9.0.3/24", "fd00:9::3/64")
        yield Path(name, client, server, {4: "10.9.0.3", 6: "fd00:9::3"})


@contextmanager
def bridge(name: str, slug: str) -> Iterator[Path]:
    """A namespace each, joined by a kernel bridge in a third."""
    with namespaces(f"{slug}-c", f"{slug}-s", f"{slug}-h") as (client, server, host):
        ip(host, "link add br0 type bridge", "link set br0 up")
        for netns, device in ((client, "vc"), (server, "vs")):
            ip(host, f"link add {device} type veth peer name eth0 netns {netns}")
            ip(host, f"link set {device} master br0", f"link set {device} up")
        _host(client, "10.9.0.2/24", "fd00:9::2/64")
        _host(server, "10.9.0.3/24", "fd00:9::3/64")
        yield Path(name, client, server, {4: "10.9.0.3", 6: "fd00:9::3"})


@contextmanager
def routed(name: str, slug: str, *, rules: str = "") -> Iterator[Path]:
    """A namespace each, routed by the kernel in a third; *rules* is an nft ruleset of the router."""
    with namespaces(f"{slug}-c", f"{slug}-s", f"{slug}-h") as (client, server, host):
        forwarding(host)
        _behind(host, client, "vc", 1)
        _behind(host, server, "vs", 2)
        if rules:
            run("ip", "netns", "exec", host, "nft", "-f", "-", stdin=rules)
        yield Path(name, client, server, {4: "10.9.2.2", 6: "fd00:9:2::2"})


STATEFUL = """
table inet stateful {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    ct state invalid drop
    meta l4proto { icmp, ipv6-icmp } accept
    ip saddr 10.9.1.0/24 tcp dport 5000-5002 ct state new accept
    ip6 saddr fd00:9:1::/64 tcp dport 5000-5002 ct state new accept
  }
}
"""
"""The least a kernel firewall needs for what Cirri does on this path: connection tracking, default deny."""


@contextmanager
def nodes_routed(name: str, slug: str) -> Iterator[Path]:
    """Pod, node, wire, node, pod, with the kernel's routing in both nodes and no rules."""
    with namespaces(f"{slug}-c", f"{slug}-s", f"{slug}-n1", f"{slug}-n2") as (client, server, one, two):
        wire(one, two)
        for node in (one, two):
            forwarding(node)
        _behind(one, client, "vp", 1)
        _behind(two, server, "vp", 2)
        ip(one, "route add 10.9.2.0/24 via 10.9.0.12", "route add fd00:9:2::/64 via fd00:9::12")
        ip(two, "route add 10.9.1.0/24 via 10.9.0.11", "route add fd00:9:1::/64 via fd00:9::11")
        yield Path(name, client, server, {4: "10.9.2.2", 6: "fd00:9:2::2"})


@contextmanager
def nodes_vxlan(name: str, slug: str) -> Iterator[Path]:
    """The same with a tunnel of the kernel's between the nodes, as flannel has it."""
    with namespaces(f"{slug}-c", f"{slug}-s", f"{slug}-n1", f"{slug}-n2") as (client, server, one, two):
        wire(one, two)
        for number, (node, pod) in enumerate(((one, client), (two, server)), 1):
            forwarding(node)
            _behind(node, pod, "vp", number)
            own, other = NODE_ADDRESSES[number][0], NODE_ADDRESSES[3 - number][0]
            ip(
                node,
                f"link add tunnel mtu {TUNNEL_MTU} type vxlan id 1 local {own} remote {other} dev eth0 "
                f"dstport {TUNNEL_PORT}",
                f"addr add 10.8.0.{number}/24 dev tunnel",
                f"addr add fd00:8::{number}/64 dev tunnel nodad",
                "link set tunnel up",
                f"route add 10.9.{3 - number}.0/24 via 10.8.0.{3 - number}",
                f"route add fd00:9:{3 - number}::/64 via fd00:8::{3 - number}",
            )
            ip(pod, f"link set eth0 mtu {TUNNEL_MTU}")
        yield Path(name, client, server, {4: "10.9.2.2", 6: "fd00:9:2::2"})


TUNNEL_PORT, TUNNEL_MTU = 8472, 1450
"""UDP port, and what fits over a wire of 1500 bytes."""
NODE_ADDRESSES = {1: ("10.9.0.11", "fd00:9::11"), 2: ("10.9.0.12", "fd00:9::12")}
"""Of the two nodes that :func:`wire` joins: IPv4, IPv6."""


def wire(one: str, two: str) -> None:
    """Joins two nodes by a veth pair ``eth0``."""
    ip(one, f"link add eth0 type veth peer name eth0 netns {two}")
    for number, node in ((1, one), (2, two)):
        v4, v6 = NODE_ADDRESSES[number]
        _host(node, f"{v4}/24", f"{v6}/64")


def _host(netns: str, v4: str, v6: str) -> None:
    ip(netns, f"addr add {v4} dev eth0", f"addr add {v6} dev eth0 nodad", "link set eth0 up")


def _behind(router: str, netns: str, device: str, subnet: int) -> None:
    """A host .2 of subnet *subnet* in *netns* behind *device* of *router*."""
    ip(router, f"link add {device} type veth peer name eth0 netns {netns}")
    ip(
        router,
        f"addr add 10.9.{subnet}.1/24 dev {device}",
        f"addr add fd00:9:{subnet}::1/64 dev {device} nodad",
        f"link set {device} up",
    )
    _host(netns, f"10.9.{subnet}.2/24", f"fd00:9:{subnet}::2/64")
    ip(netns, f"route add default via 10.9.{subnet}.1", f"route add default via fd00:9:{subnet}::1")
