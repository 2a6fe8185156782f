"""The real programs in the real kernel, with a small world in their maps, fed with single packets.

::

      pod A ──┐             ┌── pod R   (on the other node, NEXT_HOP)
      pod B ──┤ this node ──┤
              └── stack     └── the world

``World.run`` gives a packet to a program under BPF_PROG_TEST_RUN and returns all that came of it:
the verdict, the packet, and what changed in the maps.  Packets are bytes; tests build them.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from msgspec.structs import replace

from cirri.layout import (
    CT,
    ENDPOINT_MEMOS,
    ENDPOINTS,
    EVENT_COUNTER,
    EVENTS,
    FRAGMENTS,
    HOPS,
    IPCACHE,
    L2_PEERS,
    L2_RESPONDER,
    MAPS,
    MASQUERADE_NOT,
    METRICS,
    NAMES,
    NAT,
    POLICY,
    POLICY_MEMOS,
    RUNTIME,
    WAYS,
    EndpointFlag,
    EndpointValue,
    EventCounter,
    EventRecord,
    IpcacheKey,
    IpcacheValue,
    MetricsValue,
    PolicyAction,
    PolicyDirection,
    PolicyKey,
    PolicyValue,
    RuntimeConfig,
    RuntimeFlag,
    address16,
    metrics_of,
)
from cirri.maps import Objects, RingBuffer, SkBuff, open_pinned, test_run
from cirri.testing.apart import Apart

ROOT = Path(__file__).parents[3]
BUILD = ROOT / "bpf" / "build"

TC_OK, TC_SHOT, TC_REDIRECT = 0, 2, 7
EPOCH = 5
UPLINK = 77
SIZES = dict.fromkeys(("cirri_fragments", "cirri_lb_affinity", "cirri_lb_flows", "cirri_lb_reverse"), 64)
SIZES |= {"cirri_dsr": 64, "cirri_ct": 512, "cirri_nat": 512, "cirri_policy": 1024, "cirri_ipcache": 1024}
"""Small maps: the kernel allocates them whole, and every test has its own."""


@dataclass(frozen=True)
class Pod:
    """A pod of this node."""

    name: str
    address4: str
    address6: str
    identity: int
    policy_id: int
    id: int
    mac: str
    node_mac: str


A = Pod("A", "10.52.0.2", "fd00:10:52::2", 1001, 11, 2001, "0a:00:00:00:00:0a", "0e:00:00:00:00:0a")
B = Pod("B", "10.52.0.3", "fd00:10:52::3", 1002, 12, 2002, "0a:00:00:00:00:0b", "0e:00:00:00:00:0b")
PODS = {"A": A, "B": B}
R4, R6, R_IDENTITY = "10.52.1.2", "fd00:10:52::1:2", 1003
NEXT_HOP4, NEXT_HOP6 = "192.168.3.11", "fd00:192:168:3::11"
HOST4, HOST6, HOST_IDENTITY = "192.168.3.10", "fd00:192:168:3::10", 1
WORLD4, WORLD6, WORLD_IDENTITY4, WORLD_IDENTITY6 = "198.51.100.9", "2001:db8:1::9", 9, 10
NODE = Pod("H", HOST4, HOST6, HOST_IDENTITY, 19, 2009, "02:00:00:00:03:10", "02:00:00:00:03:10")
SUBJECTS = {**PODS, NODE.name: NODE}
"""Who can have a policy; the node as one is on while it has one."""
UNLISTED4, UNLISTED6 = "192.168.3.250", "fd00:192:168:3::250"
"""Addresses of this node that no map knows."""
LINK_LOCAL = "fe80::ff:fe00:310"
"""Which its uplink has by its MAC address."""
AUDIT_SET = 100
"""Added to a policy_id: the set that is tried out."""
CIDR4, CIDR6, CIDR_IDENTITY = "203.0.113.0/24", "2001:db8:2::/48", 0x01000001


class Entry(NamedTuple):
    """An entry of ``cirri_policy`` for a pod."""

    pod: str
    direction: PolicyDirection
    peer: int = 0
    protocol: int = 0
    port: int = 0
    bits: int = 0
    rule: int = 0
    deny: bool = False
    priority: int = 0
    auth: bool = False
    proxy_port: int = 0
    tried: bool = False
    """Of the set that is tried out, not of the one in force."""

    @property
    def key(self) -> PolicyKey:
        """Where it stands."""
        policy_id = SUBJECTS[self.pod].policy_id + (AUDIT_SET if self.tried else 0)
        return PolicyKey.of(policy_id, self.peer, self.direction, self.protocol, self.port, self.bits)

    @property
    def value(self) -> PolicyValue:
        """What stands there."""
        action = PolicyAction.DENY if self.deny else PolicyAction.AUTH if self.auth else PolicyAction.ALLOW
        return PolicyValue(rule=self.rule, action=action, priority=self.priority, proxy_port=self.proxy_port)


class Result(NamedTuple):
    """What came of a packet."""

    action: int
    packet: bytes
    metrics: dict[tuple[int, int], tuple[int, int]]
    """(reason, direction) -> (packets, bytes), what was added."""
    events: list[EventRecord]


@dataclass
class World:
    """Programs and maps, and the devices behind which A and B are."""

    bpffs: Path
    ifindex: dict[str, int]
    rodata: Mapping[str, int] = field(default_factory=dict)
    apart: Apart | None = None
    """Where those devices are; None: in the network namespace of the caller."""

    def __post_init__(self) -> None:
        """Load the programs and open their maps."""
        self.programs = Objects.load(
            BUILD,
            self.bpffs,
            names=["bpf_pod", "bpf_node", "bpf_overlay", "bpf_xdp", "bpf_rest"],
            max_entries=SIZES,
            rodata=self.rodata,
        )
        self.ct = open_pinned(self.bpffs, CT, max_entries=SIZES["cirri_ct"])
        self.endpoints = open_pinned(self.bpffs, ENDPOINTS)
        self.fragments = open_pinned(self.bpffs, FRAGMENTS, max_entries=SIZES["cirri_fragments"])
        self.ipcache = open_pinned(self.bpffs, IPCACHE, max_entries=SIZES["cirri_ipcache"])
        self.policy = open_pinned(self.bpffs, POLICY, max_entries=SIZES["cirri_policy"])
        self.runtime = open_pinned(self.bpffs, RUNTIME)
        self.nat = open_pinned(self.bpffs, NAT, max_entries=SIZES["cirri_nat"])
        self.masquerade_not = open_pinned(self.bpffs, MASQUERADE_NOT)
        self.names = open_pinned(self.bpffs, NAMES)
        self.l2 = open_pinned(self.bpffs, L2_RESPONDER)
        self.l2_peers = open_pinned(self.bpffs, L2_PEERS)
        self.lb: dict[str, Any] = {
            name: open_pinned(self.bpffs, spec, max_entries=SIZES.get(name, 0))
            for name, spec in MAPS.items()
            if name.startswith(("cirri_lb_", "cirri_dsr"))
        }
        """The maps of Services, by name."""
        self._metrics: Any = open_pinned(self.bpffs, METRICS)
        self._counters: Any = open_pinned(self.bpffs, EVENT_COUNTER)
        memos = (ENDPOINT_MEMOS, HOPS, POLICY_MEMOS, WAYS)
        self._remembered: Any = [open_pinned(self.bpffs, spec) for spec in memos]
        self._counts: dict[bytes, bytes] = {}
        self.ring = RingBuffer(self.bpffs / EVENTS.name)
        self.reset()

    def close(self) -> None:
        """Give everything back but the pins."""
        self.ring.close()
        maps = (self.ct, self.endpoints, self.fragments, self.ipcache, self.policy, self.runtime, self.nat)
        for each in (*maps, self.masquerade_not, self.names, self.l2, self.l2_peers, *self.lb.values()):
            each.close()
        self._metrics.close()
        self._counters.close()
        for each in self._remembered:
            each.close()
        self.programs.close()

    @property
    def uplink(self) -> int:
        """The device to other nodes."""
        return self.ifindex.get("uplink", UPLINK)

    # the world ---------------------------------------------------------------

    def reset(self) -> None:
        """Nothing is known of any connection, no policy is in force, A, B, R and the host are there."""
        maps = (self.ct, self.fragments, self.nat, self.masquerade_not, self.names, self.l2, self.l2_peers)
        for each in (*maps, self.policy, self.endpoints, self.ipcache, *self.lb.values()):
            each.clear()
        for each in self._remembered:  # the epoch is what it was
            nothing = bytes(len(each.get_raw(bytes(4))))
            places = each.info.max_entries
            keys = b"".join(index.to_bytes(4, sys.byteorder) for index in range(places))
            each.put_many_raw(keys, nothing * places)
        self.runtime.put(0, RuntimeConfig(epoch=EPOCH, uplink_ifindex=self.uplink))
        for pod in PODS.values():
            self.set_pod(pod.name, policy_id=0, flags=0)
        self._learn(R4, R_IDENTITY, NEXT_HOP4)
        self._learn(R6, R_IDENTITY, NEXT_HOP6)
        self._learn(HOST4, HOST_IDENTITY)
        self._learn(HOST6, HOST_IDENTITY)
        self._learn(CIDR4, CIDR_IDENTITY)
        self._learn(CIDR6, CIDR_IDENTITY)
        self.ring.read()
        self.counted_since()

    def _learn(self, prefix: str, identity: int, node: str = "") -> None:
        value = IpcacheValue(identity=identity, node=address16(node) if node else bytes(16))
        self.ipcache.put(IpcacheKey.of(ip_network(prefix)), value)

    def set_pod(
        self, name: str, *, policy_id: int, flags: int, identity: int = 0, audit_policy_id: int = 0
    ) -> None:
        """Write the endpoint entries of a pod, or of the node, which makes the node an endpoint."""
        pod, addresses = SUBJECTS[name], [SUBJECTS[name].address4, SUBJECTS[name].address6]
        if pod is NODE:
            flags |= EndpointFlag.HOST
            addresses.append("::")
            self.runtime.put(0, replace(self.runtime[0], flags=RuntimeFlag.HOST_FIREWALL))
        value = EndpointValue(
            ifindex=self.uplink if pod is NODE else self.ifindex[name],
            identity=identity or pod.identity,
            policy_id=policy_id,
            audit_policy_id=audit_policy_id,
            id=pod.id,
            flags=flags,
            mac=mac(pod.mac),
            node_mac=mac(pod.node_mac),
        )
        for address in addresses:
            self.endpoints.put(address16(address), value)
            if address != "::":
                self._learn(address, value.identity)

    def enforce(self, flags: Mapping[str, int], entries: tuple[Entry, ...] = ()) -> None:
        """Put *entries* in force, with default deny as *flags* say, by pod."""
        for entry in entries:
            self.policy.put(entry.key, entry.value)
        tried = {entry.pod for entry in entries if entry.tried}
        for name in {*flags, *(entry.pod for entry in entries)}:
            policy_id, wanted = SUBJECTS[name].policy_id, flags.get(name, 0)
            audit = name in tried or wanted & (EndpointFlag.AUDIT_INGRESS | EndpointFlag.AUDIT_EGRESS)
            self.set_pod(
                name,
                policy_id=policy_id,
                flags=wanted,
                audit_policy_id=policy_id + AUDIT_SET if audit else 0,
            )

    def raise_epoch(self) -> None:
        """Say that something changed."""
        config = self.runtime[0]
        self.runtime.put(0, replace(config, epoch=config.epoch + 1))

    def expire(self) -> None:
        """Let every connection's time be over."""
        for key, value in self.ct.to_dict().items():
            self.ct.put(key, replace(value, expires=1))

    def live_on(self, seconds: int) -> None:
        """Let every connection be forgotten after so long, unless something happens."""
        expires = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + seconds * 1_000_000_000
        for key, value in self.ct.to_dict().items():
            self.ct.put(key, replace(value, expires=expires))

    # packets -----------------------------------------------------------------

    def run(self, section: str, packet: bytes, ifindex: int, came_by: int = 0, mark: int = 0) -> Result:
        """Give *packet* to the program in *section*, as met on device *ifindex*.

        *came_by*: the device by which it came to this node; 0: it is the node's own.
        """
        context = SkBuff(ifindex=ifindex, ingress_ifindex=came_by, mark=mark)
        program = self.programs[section]
        if self.apart:
            run = self.apart.call(lambda: test_run(program, packet, context=context))
        else:
            run = test_run(program, packet, context=context)
        return Result(run.action, run.packet, self.counted_since(), self.events())

    def counted_since(self) -> dict[tuple[int, int], tuple[int, int]]:
        """(reason, direction) -> (packets, bytes), of all CPUs, since the last look."""
        before, self._counts = self._counts, dict(self._metrics.items_raw())
        value = self._metrics.value
        added = {}
        for key, raw in self._counts.items():
            if raw != before.get(key):
                now, then = (
                    MetricsValue.sum(value.unpack(each)) for each in (raw, before.get(key, bytes(len(raw))))
                )
                added[metrics_of(self._metrics.key.unpack(key))] = (
                    now.packets - then.packets,
                    now.bytes - then.bytes,
                )
        return added

    def events(self) -> list[EventRecord]:
        """What the programs told since the last look."""
        return [EventRecord.unpack(raw) for raw in self.ring.read()]

    def counted(self, counter: EventCounter) -> int:
        """Events submitted or lost so far."""
        return sum(self._counters[counter])


def mac(text: str) -> bytes:
    """The bytes of a MAC address."""
    return bytes.fromhex(text.replace(":", ""))


def routed(packet: bytes, pod: Pod | None) -> bytes:
    """*packet* as a router passes it on: one hop less, a right checksum, and the MACs of *pod*'s link."""
    out = bytearray(packet)
    if pod:
        out[:12] = mac(pod.mac) + mac(pod.node_mac)
    if out[12:14] == b"\x86\xdd":
        out[21] -= 1
        return bytes(out)
    out[22] -= 1
    header = 14 + (out[14] & 15) * 4
    out[24:26] = bytes(2)
    out[24:26] = checksum(bytes(out[14:header])).to_bytes(2, "big")
    return bytes(out)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071), computed in the plainest way."""
    total = sum(int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _node() -> dict[str, int]:
    """The devices and routes of this node, in a network namespace that has nothing yet."""
    commands = f"""
        link add A type veth peer name B
        link add uplink address {NODE.node_mac} type veth peer name wire
        addr add {HOST4}/24 dev uplink
        addr add {UNLISTED4}/24 dev uplink
        addr add {HOST6}/64 dev uplink nodad
        addr add {UNLISTED6}/64 dev uplink nodad
        link set lo up
        link set wire up
        link set uplink up
        route add default via {NEXT_HOP4}
        route add default via {NEXT_HOP6}
        """
    # No address is tentative for a second.
    Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
    subprocess.run(["ip", "-batch", "-"], input=commands, text=True, check=True, timeout=10)
    for forwarding in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        Path("/proc/sys/net", forwarding).write_text("1")
    return {name: socket.if_nametoindex(name) for name in ("A", "B", "uplink")}


@contextmanager
def place() -> Iterator[tuple[Path, Apart]]:
    """Where pins go, and a network namespace; nothing of it stays."""
    bpffs = Path(f"/sys/fs/bpf/cirri-test-{uuid4().hex[:12]}")
    with Apart() as apart:
        try:
            yield bpffs, apart
        finally:
            shutil.rmtree(bpffs, ignore_errors=True)


@contextmanager
def world(rodata: Mapping[str, int] | None = None) -> Iterator[World]:
    """A world of its own."""
    with place() as (bpffs, apart), closing(World(bpffs, apart.call(_node), rodata or {}, apart)) as made:
        yield made
