"""Cirri's own paths: the shipped programs at their hooks, and maps as the datapath service fills them.

No service runs here, so that the figures are the datapath's alone.  Policy is enforced in both
directions at both pods, each direction of each pod holding 1000 entries (:class:`Width`) of which
three are about this peer; thousands of other pods stand in the ipcache; connections are tracked;
a reader empties the ring of flow events.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path as FilePath
from time import CLOCK_MONOTONIC, clock_gettime_ns, monotonic

from integration.bench.machine import (
    OTHER,
    REPOSITORY,
    BenchError,
    build,
    forwarding,
    ip,
    namespaces,
    running,
)
from integration.bench.paths import NODE_ADDRESSES, Path, wire
from integration.bench.pods import Pod, attach_pod, attach_uplink, mac_bytes, pins
from integration.bench.rounds import PORT

from cirri.datapath.nat import stale
from cirri.lab.enter import inside
from cirri.layout import (
    CT,
    ENDPOINTS,
    EVENT_COUNTER,
    IPCACHE,
    METRICS,
    NAT,
    POLICY,
    RUNTIME,
    DropReason,
    EndpointFlag,
    EndpointValue,
    EventCounter,
    IpcacheKey,
    IpcacheValue,
    PolicyDirection,
    PolicyKey,
    PolicyValue,
    RuntimeConfig,
    RuntimeFlag,
    address16,
    metrics_of,
)
from cirri.layout.tracing import Tracing
from cirri.maps import Objects, Programs, open_per_cpu, open_pinned

OBJECTS = REPOSITORY / "bpf/build"
FILES = ("bpf_pod", "bpf_node", "bpf_overlay", "bpf_sock")
REMOTE_PODS = 2000
"""Other pods of the cluster, with an IPv4 and an IPv6 address each."""
CLIENT, SERVER, STRANGER = 1001, 1002, 20000
"""Identities: the two pods', and the first of those that other rules are about."""
OUTSIDE = 0x0100_0001
"""That of a prefix outside the cluster which policies tell apart."""
OPEN = (PORT, PORT + 1, PORT + 2)
CLOSED_PORT = PORT + 3
"""Nothing allows it: a connection to it proves that policy is enforced."""
DRAIN_MS = 10
PROOF_S = 5.0


@dataclass(frozen=True, slots=True)
class Width:
    """How much stands in the maps."""

    rules: int = 1000
    """Policy entries of each direction of each pod; 0: no policy at all."""
    prefixes: int = 0
    """Addresses in the ipcache besides those of the cluster's pods."""


USUAL, USUAL_TRACING = Width(), Tracing()


@dataclass(slots=True)
class Node:
    """A node with Cirri's programs loaded."""

    netns: str
    pins: FilePath
    subnet: int
    programs: Programs

    def pod(self, netns: str, number: int, mtu: int = 1500) -> Pod:
        """Makes *netns* a pod of this node."""
        return attach_pod(
            self.netns,
            netns,
            number,
            from_pod=self.programs["tc/from_pod"].fd,
            links=self.pins,
            to_pod=self.programs["tc/to_pod"].fd,
            subnet=self.subnet,
            mtu=mtu,
        )


def endpoint_values(
    pod: Pod, identity: int, number: int, width: Width
) -> Iterator[tuple[bytes, EndpointValue]]:
    """The entries of map ``cirri_endpoints`` for *pod*."""
    enforced = EndpointFlag.ENFORCE_INGRESS | EndpointFlag.ENFORCE_EGRESS
    value = EndpointValue(
        ifindex=pod.index,
        identity=identity,
        policy_id=number if width.rules else 0,
        id=number,
        flags=enforced if width.rules else EndpointFlag(0),
        mac=mac_bytes(pod.device.mac),
        node_mac=mac_bytes(pod.device.outside_mac),
    )
    return ((address16(address), value) for address in pod.device.addresses)


def policy_entries(
    policy_id: int, peer: int, direction: PolicyDirection, rules: int
) -> Iterator[tuple[PolicyKey, PolicyValue]]:
    """*rules* entries of *direction*, *peer* allowed on the open ports among them; none for 0."""
    if not rules:
        return
    for number, port in enumerate(OPEN):
        yield (
            PolicyKey.of(policy_id, peer, direction, socket.IPPROTO_TCP, port, 16),
            PolicyValue(rule=1 + number),
        )
    for number in range(rules - len(OPEN)):
        other = STRANGER + number // 4
        key = PolicyKey.of(policy_id, other, direction, socket.IPPROTO_TCP, 8000 + number % 4, 16)
        yield key, PolicyValue(rule=100 + number)


def ipcache_entries(
    near: Mapping[str, int], far: Mapping[str, int], prefixes: int
) -> Iterator[tuple[IpcacheKey, IpcacheValue]]:
    """*near* pods (address: identity), *far* ones behind their node (address: identity), the rest of
    the cluster, and *prefixes* addresses outside it."""
    for address, identity in near.items():
        yield IpcacheKey.of(ip_network(address)), IpcacheValue(identity=identity)
    for address, identity in far.items():
        yield IpcacheKey.of(ip_network(address)), IpcacheValue(identity=identity, node=_node_of(address))
    for number in range(REMOTE_PODS):
        for other in (IPv4Address("10.60.0.0") + number, IPv6Address("fd00:10:60::") + number):
            value = IpcacheValue(identity=STRANGER + number % 500, node=_node_of(str(other)))
            yield IpcacheKey.of(ip_network(other)), value
    for number in range(prefixes):
        value = IpcacheValue(identity=STRANGER + number % 500)
        yield IpcacheKey.of(ip_network(IPv4Address("11.0.0.0") + number)), value


def _node_of(pod: str) -> bytes:
    """Next hop to *pod*: subnets 1 and 2 are the two nodes, everything else is behind node 2."""
    address = ip_address(pod)
    packed = address.packed
    subnet = packed[2] if address.version == 4 else int.from_bytes(packed[12:14], "big")
    hops = NODE_ADDRESSES.get(subnet, NODE_ADDRESSES[2])
    return address16(ip_address(hops[address.version == 6]))


@contextmanager
def loaded(
    netns: str,
    slug: str,
    subnet: int,
    sizes: Mapping[str, int] | None = None,
) -> Iterator[Node]:
    """The programs of a node, loaded, and a reader of its events; *sizes*: of maps that are to be larger."""
    forwarding(netns)
    with pins(slug) as folder, Objects.load(OBJECTS, folder, names=FILES, max_entries=sizes) as programs:
        into, out = programs["tc/from_network"].fd, programs["tc/to_network"].fd
        uplink = attach_uplink(netns, into, folder, leaving=out)
        v4, v6 = NODE_ADDRESSES[subnet]
        with open_pinned(folder, RUNTIME) as runtime:
            runtime.put(
                0,
                RuntimeConfig(
                    epoch=1,
                    uplink_ifindex=uplink,
                    flags=RuntimeFlag.MASQUERADE4 | RuntimeFlag.MASQUERADE6 | USUAL_TRACING.switches,
                    trace_interval=USUAL_TRACING.ticks,
                    trace_flags=USUAL_TRACING.tcp_flags,
                    nat4=address16(v4),
                    nat6=address16(v6),
                ),
            )
        with running(
            build("drain", "-lbpf"), folder / "cirri_events", str(DRAIN_MS), str(OTHER), ready="ready"
        ):
            yield Node(netns, folder, subnet, programs)


def fill(node: Node, pods: Sequence[tuple[Pod, int, int]], far: Mapping[str, int], width: Width) -> None:
    """Writes a node's maps: *pods* as (pod, its identity, its peer's identity), *far* pods elsewhere."""
    with open_pinned(node.pins, ENDPOINTS) as endpoints, open_pinned(node.pins, POLICY) as policy:
        for number, (pod, identity, peer) in enumerate(pods, 1):
            for direction in PolicyDirection:
                policy.put_many(policy_entries(number, peer, direction, width.rules))
            endpoints.put_many(endpoint_values(pod, identity, number, width))
    near = {address: identity for pod, identity, _ in pods for address in pod.addresses.values()}
    with open_pinned(node.pins, IPCACHE) as ipcache:
        ipcache.put_many(ipcache_entries(near, far, width.prefixes))


def counters(*nodes: Node) -> Mapping[str, int]:
    """What the programs of *nodes* counted: packets forwarded and dropped, events, tracked connections."""
    found = dict.fromkeys(("forwarded", "dropped", "events", "events_lost", "ct_entries"), 0)
    for node in nodes:
        with open_per_cpu(node.pins, METRICS) as metrics:
            for index, values in metrics.items():
                kind = "dropped" if metrics_of(index)[0] else "forwarded"
                found[kind] += sum(value.packets for value in values)
        with open_per_cpu(node.pins, EVENT_COUNTER) as events:
            found["events"] += sum(events[EventCounter.SUBMITTED])
            found["events_lost"] += sum(events[EventCounter.LOST])
        with open_pinned(node.pins, CT) as ct:
            found["ct_entries"] += ct.count()
    return found


def collect(*nodes: Node) -> None:
    """Removes expired connections, as the datapath service does."""
    now = clock_gettime_ns(CLOCK_MONOTONIC)
    for node in nodes:
        with open_pinned(node.pins, CT) as ct:
            ct.delete_many([key for key, value in ct.items() if value.expires < now])
        with open_pinned(node.pins, NAT) as nat:
            nat.delete_many_raw(b"".join(stale(nat.items_raw(), now, nat.get_raw)))


def path_by(name: str, client: str, server: str, addresses: Mapping[int, str], *nodes: Node) -> Path:
    """The path from *client* to *server*, whose *nodes* count what they do."""
    return Path(
        name, client, server, addresses, counters=lambda: counters(*nodes), tidy=lambda: collect(*nodes)
    )


def prove_enforced(path: Path, *nodes: Node) -> Path:
    """*path*, once a connection that no rule allows was dropped by policy; BenchError otherwise."""
    for address in path.addresses.values():
        denied, deadline = _policy_drops(nodes), monotonic() + PROOF_S
        while _policy_drops(nodes) == denied:
            if monotonic() > deadline:
                told = dict(counters(*nodes))
                raise BenchError(f"{path.name}: policy dropped nothing on the way to {address}: {told}")
            if _connects(path.client, address):
                raise BenchError(
                    f"{path.name}: port {CLOSED_PORT} of {address} answered although no rule allows it"
                )
    return path


def _connects(netns: str, address: str) -> bool:
    """Whether the closed port answers within a moment, be it by refusal."""
    with inside(netns):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        client = socket.socket(family, socket.SOCK_STREAM)
    with client:
        client.settimeout(0.2)
        try:
            client.connect((address, CLOSED_PORT))
        except TimeoutError:
            return False
        except ConnectionRefusedError:
            return True
    return True


def _policy_drops(nodes: Sequence[Node]) -> int:
    total = 0
    for node in nodes:
        with open_per_cpu(node.pins, METRICS) as metrics:
            for index, values in metrics.items():
                if metrics_of(index)[0] == DropReason.POLICY:
                    total += sum(value.packets for value in values)
    return total


@contextmanager
def local_pods(
    name: str, slug: str, width: Width | None = None, sizes: Mapping[str, int] | None = None
) -> Iterator[Path]:
    """Two pods of one node; *sizes*: of maps that are to be larger."""
    with local_node(name, slug, width, sizes) as (_, path):
        yield path


@contextmanager
def local_node(
    name: str, slug: str, width: Width | None = None, sizes: Mapping[str, int] | None = None
) -> Iterator[tuple[Node, Path]]:
    """The same, and the node."""
    width = width or USUAL
    with namespaces(f"{slug}-c", f"{slug}-s", f"{slug}-n", f"{slug}-x") as (client, server, netns, other):
        wire(netns, other)
        with loaded(netns, slug, 1, sizes) as node:
            pods = (node.pod(client, 2), CLIENT, SERVER), (node.pod(server, 3), SERVER, CLIENT)
            fill(node, pods, {}, width)
            path = path_by(name, client, server, pods[1][0].addresses, node)
            yield node, prove_enforced(path, node) if width.rules else path


@contextmanager
def remote_pods(name: str, slug: str) -> Iterator[Path]:
    """A pod of one node and a pod of another, native routing between the two."""
    with namespaces(f"{slug}-c", f"{slug}-s", f"{slug}-n1", f"{slug}-n2") as (client, server, first, second):
        wire(first, second)
        with loaded(first, f"{slug}1", 1) as one, loaded(second, f"{slug}2", 2) as two:
            near, away = one.pod(client, 2), two.pod(server, 3)
            fill(one, [(near, CLIENT, SERVER)], dict.fromkeys(away.addresses.values(), SERVER), USUAL)
            fill(two, [(away, SERVER, CLIENT)], dict.fromkeys(near.addresses.values(), CLIENT), USUAL)
            for node, subnet in ((first, 2), (second, 1)):
                v4, v6 = NODE_ADDRESSES[subnet]
                ip(
                    node,
                    f"route add 10.52.{subnet}.0/24 via {v4}",
                    f"route add fd00:10:52::{subnet}:0/112 via {v6}",
                )
            yield prove_enforced(path_by(name, client, server, away.addresses, one, two), one, two)


@contextmanager
def outside_server(name: str, slug: str, counted: Callable[[str], Mapping[str, int]]) -> Iterator[Path]:
    """A pod of a node, and a server on the wire that knows the node alone; *counted*: what it says."""
    with namespaces(f"{slug}-c", f"{slug}-n", f"{slug}-s") as (client, netns, server):
        wire(netns, server)
        with loaded(netns, slug, 1) as node:
            fill(node, [(node.pod(client, 2), CLIENT, OUTSIDE)], {}, USUAL)
            v4, v6 = NODE_ADDRESSES[2]
            with open_pinned(node.pins, IPCACHE) as ipcache:
                for address in (v4, v6):
                    ipcache.put(IpcacheKey.of(ip_network(address)), IpcacheValue(identity=OUTSIDE))
            path = Path(
                name,
                client,
                server,
                {4: v4, 6: v6},
                counters=lambda: {**counters(node), **counted(server)},
                tidy=lambda: collect(node),
            )
            yield prove_enforced(path, node)
