"""Row B5: pods of two nodes by a VXLAN tunnel, against the two nodes themselves and the kernel's tunnel."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import ip_network
from itertools import chain, product

from integration.bench import paths
from integration.bench.cirri_paths import (
    CLIENT,
    SERVER,
    USUAL,
    Node,
    fill,
    loaded,
    path_by,
    prove_enforced,
)
from integration.bench.datapath import account, line, series_of, why_void
from integration.bench.machine import ip, namespaces
from integration.bench.paths import NODE_ADDRESSES, TUNNEL_MTU, TUNNEL_PORT, Path, wire
from integration.bench.report import Line, Report
from integration.bench.rounds import Clients, Effort, Mode, Series, pooled
from integration.bench.stats import Goal
from msgspec import structs

from cirri.datapath.overlay import DEVICE, FROM_OVERLAY, TO_OVERLAY
from cirri.labels import Reserved
from cirri.layout import IPCACHE, RUNTIME, IpcacheKey, IpcacheValue, address16
from cirri.maps import open_pinned
from cirri.netlink import channel_in, messages, namespace

NODES, AGAIN, KERNEL, CIRRI = "node to node", "node to node again", "kernel VXLAN", "cirri"
REFERENCES = {name: tuple(f"{name} ({copy})" for copy in "ab") for name in (NODES, AGAIN)}
SHARE = 0.6
"""Length of a sample, of what was asked for."""
GOALS: dict[Mode, dict[str, Goal]] = {
    "rr": {NODES: Goal(at_least=0.70), KERNEL: Goal(at_least=1.18)},
    "crr": {KERNEL: Goal(at_least=1.18)},
    "stream": {NODES: Goal(at_least=0.80)},
}


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row B5."""
    with ExitStack() as stack:
        names = chain.from_iterable(REFERENCES.values())
        peers = [paths.raw(name, f"t{at}") for at, name in enumerate(names)]
        peers += [paths.nodes_vxlan(KERNEL, "vxlan"), tunnelled_pods(CIRRI, "tun")]
        up = [stack.enter_context(each) for each in peers]
        clients = Clients(stack, up, effort.families)
        effort = replace(effort, seconds=SHARE * effort.seconds)
        modes: tuple[Mode, ...] = ("rr", "crr", "stream")
        for mode, family in product(modes, effort.families):
            if series := series_of(report, rows[0], clients, up, mode, family, effort):
                account(report, rows[0], series, (CIRRI,))
                series = pooled(series, REFERENCES)
                report.lines += lines(rows[0], series)
                if void := why_void(series, NODES, AGAIN):
                    report.failures.append(f"{rows[0]} {mode} IPv{family}: void, {void}")


def lines(row: str, series: Series) -> Iterator[Line]:
    """The lines of one mode and family."""
    why = why_void(series, NODES, AGAIN)
    for name in (NODES, AGAIN, KERNEL):
        yield line(row, series, name, NODES)
    for peer in (NODES, KERNEL):
        yield line(row, series, CIRRI, peer, GOALS[series.mode].get(peer), why)


@contextmanager
def tunnelled_pods(name: str, slug: str) -> Iterator[Path]:
    """A pod of one node and a pod of another, a tunnel between the two."""
    with namespaces(f"{slug}-c", f"{slug}-s", f"{slug}-n1", f"{slug}-n2") as (client, server, first, second):
        wire(first, second)
        with loaded(first, f"{slug}1", 1) as one, loaded(second, f"{slug}2", 2) as two:
            near, away = one.pod(client, 2, TUNNEL_MTU), two.pod(server, 3, TUNNEL_MTU)
            fill(one, [(near, CLIENT, SERVER)], {}, USUAL)
            fill(two, [(away, SERVER, CLIENT)], {}, USUAL)
            dig(one, away.addresses.values(), SERVER)
            dig(two, near.addresses.values(), CLIENT)
            yield prove_enforced(path_by(name, client, server, away.addresses, one, two), one, two)


def dig(node: Node, far: Collection[str], identity: int) -> None:
    """Has what goes to *far*, pods of the other node, take a tunnel, as the datapath service does."""
    hop = NODE_ADDRESSES[3 - node.subnet][0]
    into, out = node.programs[FROM_OVERLAY].fd, node.programs[TO_OVERLAY].fd
    with namespace(f"/run/netns/{node.netns}") as where, channel_in(where) as channel:
        channel.apply([messages.vxlan(DEVICE, port=TUNNEL_PORT, mtu=TUNNEL_MTU)])
        index = channel.index(DEVICE)
        channel.apply(
            [
                messages.clsact(index, name=DEVICE),
                messages.program(index, hook=messages.INGRESS, fd=into, label="from_overlay", name=DEVICE),
                messages.program(index, hook=messages.EGRESS, fd=out, label="to_overlay", name=DEVICE),
                messages.link_up(index, name=DEVICE, arp=False),
            ]
        )
    for address in far:
        ip(node.netns, f"route add {address} dev {DEVICE}")
    with open_pinned(node.pins, IPCACHE) as ipcache, open_pinned(node.pins, RUNTIME) as runtime:
        for address in (*far, *NODE_ADDRESSES[3 - node.subnet]):
            value = IpcacheValue(
                identity=identity if address in far else Reserved.REMOTE_NODE, node=address16(hop)
            )
            ipcache.put(IpcacheKey.of(ip_network(address)), value)
        now = runtime[0]
        runtime.put(
            0, structs.replace(now, tunnel_ifindex=index, tunnel_port=TUNNEL_PORT, epoch=now.epoch + 1)
        )
