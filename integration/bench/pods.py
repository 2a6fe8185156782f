"""Pods as Cirri wires them, in nodes made of namespaces: the device, its addresses, its hooks.

The wiring is :mod:`cirri.netlink.pod`, the same that the datapath service uses.
"""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path as FilePath

from integration.bench.machine import PREFIX, build_bpf, forwarding, namespaces
from integration.bench.paths import NODE_ADDRESSES, Path, wire

from cirri.datapath.attach import UPLINK, UPLINK_OUT
from cirri.datapath.hooks import Hooks
from cirri.layout import address16
from cirri.layout.scalar import ADDRESS, Raw
from cirri.maps import AttachType, BpfMap, Objects, ensure_bpffs, has_tcx
from cirri.netlink import channel_in, inside, messages, namespace, pod

BPFFS = FilePath("/sys/fs/bpf")
WHERE = Raw("struct where", 36)
"""Of ``ceiling.bpf.c``: device, the pod's MAC, the node's, family and address of another node."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of one node."""

    netns: str
    device: pod.PodDevice
    index: int
    """Of the device on the node's side, in the node's namespace."""

    @property
    def addresses(self) -> Mapping[int, str]:
        """Text of its addresses, by family."""
        return {address.version: str(address) for address in self.device.addresses}


def attach_pod(
    node: str,
    netns: str,
    number: int,
    *,
    from_pod: int,
    links: FilePath,
    to_pod: int | None = None,
    subnet: int = 1,
    mtu: int = 1500,
) -> Pod:
    """Makes *netns* a pod of *node* with the given programs (descriptors) on its device.

    Its addresses end in *number*: 10.52.SUBNET.NUMBER and fd00:10:52::SUBNET:NUMBER.  The hooks are
    those that a pod has once the datapath service has found the time: tcx, pinned below *links*.
    """
    device = pod.PodDevice(
        inside="eth0",
        outside=f"lxc{number}",
        mac=f"02:00:00:00:{subnet:02x}:{number:02x}",
        outside_mac=f"02:00:00:01:{subnet:02x}:{number:02x}",
        addresses=(ip_address(f"10.52.{subnet}.{number}"), ip_address(f"fd00:10:52::{subnet}:{number:x}")),
        mtu=mtu,
    )
    with namespace(f"/run/netns/{node}") as outer, namespace(f"/run/netns/{netns}") as inner:
        with channel_in(outer) as channel:
            channel.apply(pod.create(device, inner))
            index = channel.index(device.outside)
            requests = pod.hooks(index, device.outside, from_pod=from_pod, to_pod=to_pod or from_pod)
            channel.apply(requests if to_pod else requests[:2])
        inside(outer, lambda: Hooks(links, tcx=has_tcx()).quicken(device.outside, index, from_pod))
        with channel_in(inner) as channel:
            channel.apply(pod.inside(device, channel.index(device.inside)))
        with channel_in(outer) as channel:
            channel.apply(pod.outside(device, index))
    return Pod(netns, device, index)


def attach_uplink(
    node: str, program: int, links: FilePath, device: str = "eth0", *, leaving: int | None = None
) -> int:
    """Puts *program* (a descriptor) where packets from other nodes arrive, and *leaving* where packets leave;
    the device's index."""
    with namespace(f"/run/netns/{node}") as outer, channel_in(outer) as channel:
        index = channel.index(device)
        channel.apply(
            [
                messages.clsact(index, name=device),
                messages.program(index, hook=messages.INGRESS, fd=program, label="from_network", name=device),
            ]
        )
        hooks = Hooks(links, tcx=has_tcx())
        inside(outer, lambda: hooks.quicken(UPLINK, index, program))
        if leaving is not None:
            hook = messages.EGRESS
            channel.apply([messages.program(index, hook=hook, fd=leaving, label="to_network", name=device)])
            inside(outer, lambda: hooks.quicken(UPLINK_OUT, index, leaving, AttachType.TCX_EGRESS))
    return index


@contextmanager
def pins(name: str) -> Iterator[FilePath]:
    """A folder ``cirri-bench-NAME`` of the BPF file system, removed with everything in it."""
    folder = BPFFS / f"{PREFIX}{name}"
    try:
        ensure_bpffs(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def mac_bytes(text: str) -> bytes:
    """A MAC address as six bytes."""
    return bytes.fromhex(text.replace(":", ""))


@contextmanager
def _ceiling_node(netns: str, slug: str) -> Iterator[tuple[int, FilePath, BpfMap[bytes, bytes]]]:
    """The smallest program (its descriptor), where to pin, and its map, for one node."""
    forwarding(netns)
    with (
        pins(slug) as folder,
        Objects.load(build_bpf("ceiling").parent, folder, names=("ceiling.bpf",)) as programs,
        BpfMap(folder / "bench_pods", ADDRESS, WHERE) as where,
    ):
        yield programs["tc"].fd, folder, where


def _here(each: Pod) -> bytes:
    macs = mac_bytes(each.device.mac) + mac_bytes(each.device.outside_mac)
    return each.index.to_bytes(4, sys.byteorder) + macs + bytes(20)


def _there(uplink: int, node: str) -> bytes:
    hop = ip_address(node)
    family = socket.AF_INET if hop.version == 4 else socket.AF_INET6
    numbers = uplink.to_bytes(4, sys.byteorder) + bytes(12) + family.to_bytes(4, sys.byteorder)
    return numbers + hop.packed.ljust(16, b"\0")


@contextmanager
def ceiling(name: str, slug: str) -> Iterator[Path]:
    """Two pods of one node with the smallest program that can deliver (``ceiling.bpf.c``)."""
    with (
        namespaces(f"{slug}-c", f"{slug}-s", f"{slug}-n") as (client, server, node),
        _ceiling_node(node, slug) as (program, folder, where),
    ):
        both = [
            attach_pod(node, netns, at, from_pod=program, links=folder)
            for at, netns in enumerate((client, server), 2)
        ]
        for each in both:
            for address in each.device.addresses:
                where.put(address16(address), _here(each))
        yield Path(name, client, server, both[1].addresses)


@contextmanager
def far_ceiling(name: str, slug: str) -> Iterator[Path]:
    """A pod on each of two nodes, with that program on pods and uplinks."""
    with (
        namespaces(f"{slug}-c", f"{slug}-s", f"{slug}-n1", f"{slug}-n2") as (client, server, one, two),
        _ceiling_node(one, f"{slug}1") as first,
        _ceiling_node(two, f"{slug}2") as second,
    ):
        wire(one, two)
        ends = []
        for node, netns, (program, folder, where), subnet in (
            (one, client, first, 1),
            (two, server, second, 2),
        ):
            end = attach_pod(node, netns, 2, from_pod=program, links=folder, subnet=subnet)
            ends.append((end, where, attach_uplink(node, program, folder)))
            for address in end.device.addresses:
                where.put(address16(address), _here(end))
        for (_, where, uplink), (other, _, _), hop in zip(ends, reversed(ends), (2, 1), strict=True):
            for address in other.device.addresses:
                where.put(address16(address), _there(uplink, NODE_ADDRESSES[hop][address.version == 6]))
        yield Path(name, client, server, ends[1][0].addresses)
