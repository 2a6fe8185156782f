"""Two nodes on one kernel, with real devices and real traffic; each has its own pins, as in the lab.

::

    pod A ── va ┐                              ┌ vr ── pod R
                ├ node 1 ─ uplink ══ uplink ─ node 2
    pod B ── vb ┘
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path
from uuid import uuid4

from msgspec.structs import replace

from cirri.layout import EndpointValue, IpcacheKey, IpcacheValue, RuntimeConfig, address16
from cirri.maps import pin_program
from cirri.testing.datapath import (
    EPOCH,
    HOST4,
    HOST6,
    NEXT_HOP4,
    NEXT_HOP6,
    R4,
    R6,
    R_IDENTITY,
    A,
    B,
    Pod,
    World,
    mac,
)

FROM_POD, TO_POD = "tc/from_pod", "tc/to_pod"
FROM_NETWORK, TO_NETWORK = "tc/from_network", "tc/to_network"
FROM_OVERLAY, TO_OVERLAY = "tc/from_overlay", "tc/to_overlay"
TUNNEL, TUNNEL_PORT = "cirri_vxlan", 8472
R = Pod("R", R4, R6, R_IDENTITY, 13, 2003, "0a:00:00:00:00:0c", "0e:00:00:00:00:0c")
PING = """
import os, socket, struct, sys
address, size, ttl, wait = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
six = ":" in address
s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, 58 if six else 1)
s.setsockopt(*((41, socket.IPV6_UNICAST_HOPS) if six else (0, socket.IP_TTL)), ttl)
s.settimeout(wait)
to = socket.getaddrinfo(address, 0)[0][4]  # with the device of a link-local one
body = struct.pack("!HH", os.getpid() & 0xFFFF, 1) + bytes(i & 255 for i in range(size))
def sum16(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16: total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
head = bytes([128 if six else 8, 0])
try:
    s.sendto(head + struct.pack("!H", 0 if six else sum16(head + bytes(2) + body)) + body, to)
    while True:
        data, sender = s.recvfrom(65536)
        data = data if six else data[(data[0] & 15) * 4 :]
        if data[0] == (129 if six else 0) and data[4:] == body: print(sender[0], "reply"); break
        if data[0] == (3 if six else 11): print(sender[0], "exceeded"); break
except OSError:  # no answer, or not even sent
    print("silence")
"""


class TwoNodes:
    """Two nodes, three pods, and the means to run something in each."""

    def __init__(self) -> None:
        self.stem = f"cirri-test-{uuid4().hex[:6]}"
        self.pins = [Path(f"/sys/fs/bpf/{self.stem}-{n}") for n in (1, 2)]
        self.worlds: list[World] = []

    def ns(self, name: str) -> str:
        """The network namespace of n1, n2, A, B or R."""
        return f"{self.stem}-{name}"

    def run(self, where: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run *command* there (`ip netns exec` would hide the BPF file system)."""
        return subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.ns(where)}", *command],
            check=check,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def ip(self, where: str, command: str) -> None:
        """Run an `ip` command there."""
        subprocess.run(["ip", "-n", self.ns(where), *command.split()], check=True, timeout=10)

    def ifindex(self, where: str, device: str) -> int:
        """The device's number there."""
        return int(self.run(where, "ip", "-o", "link", "show", "dev", device).stdout.split(":")[0])

    def pod(self, node: str, pod: Pod, device: str) -> None:
        """A pod and its device, as CNI makes them."""
        self.ip(
            node,
            f"link add {device} address {pod.node_mac} type veth"
            f" peer name eth0 address {pod.mac} netns {self.ns(pod.name)}",
        )
        for command in (
            "link set lo up",
            f"addr add {pod.address4}/32 dev eth0",
            f"addr add {pod.address6}/128 dev eth0 nodad",
            "link set eth0 up",
            "route add 169.254.1.1 dev eth0 scope link",
            "route add default via 169.254.1.1 dev eth0",
            "route add default via fe80::1 dev eth0",
        ):
            self.ip(pod.name, command)
        self.ip(node, f"link set {device} up")
        self.ip(node, f"route add {pod.address4}/32 dev {device}")
        self.ip(node, f"route add {pod.address6}/128 dev {device}")

    def start(self) -> None:
        """Make everything."""
        for name in ("n1", "n2", "A", "B", "R"):
            subprocess.run(["ip", "netns", "add", self.ns(name)], check=True, timeout=10)
            # No address is tentative for a second: everything is there when start() returns.
            self.run(name, "sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad")
        self.ip("n1", f"link add uplink type veth peer name uplink netns {self.ns('n2')}")
        for node, a4, a6 in (("n1", HOST4, HOST6), ("n2", NEXT_HOP4, NEXT_HOP6)):
            for command in (
                "link set lo up",
                f"addr add {a4}/24 dev uplink",
                f"addr add {a6}/64 dev uplink nodad",
                "link set uplink up",
            ):
                self.ip(node, command)
            self.run(
                node,
                "sh",
                "-c",
                "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding",
            )
        self.pod("n1", A, "va")
        self.pod("n1", B, "vb")
        self.pod("n2", R, "vr")
        # The stack answers for itself: it needs to know where the other node's pods are.
        for node, pods4, via4, pods6, via6 in (
            ("n1", "10.52.1.0/24", NEXT_HOP4, "fd00:10:52::1:0/112", NEXT_HOP6),
            ("n2", "10.52.0.0/24", HOST4, "fd00:10:52::/112", HOST6),
        ):
            self.ip(node, f"route add {pods4} via {via4}")
            self.ip(node, f"route add {pods6} via {via6}")
        self.load(1, {"A": self.ifindex("n1", "va"), "B": self.ifindex("n1", "vb")}, "n1", ("va", "vb"))
        self.load(2, {"A": 9999, "B": 9999}, "n2", ("vr",))
        second = self.worlds[1]
        second.endpoints.clear()
        endpoint = EndpointValue(
            ifindex=self.ifindex("n2", "vr"),
            identity=R_IDENTITY,
            id=R.id,
            mac=mac(R.mac),
            node_mac=mac(R.node_mac),
        )
        for address in (R4, R6):
            second.endpoints.put(address16(address), endpoint)
        for pod in (A, B):
            for address, node in ((pod.address4, HOST4), (pod.address6, HOST6)):
                value = IpcacheValue(identity=pod.identity, node=address16(node))
                second.ipcache.put(IpcacheKey.of(ip_network(address)), value)
        for host in (HOST4, HOST6):
            second.ipcache.put(IpcacheKey.of(ip_network(host)), IpcacheValue(identity=6))

    def load(self, number: int, ifindex: dict[str, int], node: str, devices: tuple[str, ...]) -> None:
        """Programs of a node, attached to its devices."""
        pins = self.pins[number - 1]
        world = World(pins, ifindex)
        self.worlds.append(world)
        config = RuntimeConfig(epoch=EPOCH, uplink_ifindex=self.ifindex(node, "uplink"))
        world.runtime.put(0, config)
        hooks = [("uplink", "ingress", FROM_NETWORK), ("uplink", "egress", TO_NETWORK)]
        hooks += [(d, *hook) for d in devices for hook in (("ingress", FROM_POD), ("egress", TO_POD))]
        self.attach(number, hooks)

    def attach(self, number: int, hooks: Iterable[tuple[str, str, str]]) -> None:
        """Put programs of a node, by section, at (device, hook)."""
        node, pins, world = f"n{number}", self.pins[number - 1], self.worlds[number - 1]
        for device, hook, section in hooks:
            pinned = pins / f"program_{section.replace('/', '_')}"
            pin_program(world.programs[section], pinned)
            self.run(node, "tc", "qdisc", "replace", "dev", device, "clsact")
            self.run(
                node,
                "tc",
                "filter",
                "replace",
                "dev",
                device,
                hook,
                "bpf",
                "direct-action",
                "pinned",
                str(pinned),
            )

    def tunnel(self, *, by_programs: bool = True) -> None:
        """Have what goes from node to node take a tunnel; *by_programs*: past the device, where they can."""
        for number, own, there, others in (
            (1, (HOST4, HOST6), (NEXT_HOP4, NEXT_HOP6), (R,)),
            (2, (NEXT_HOP4, NEXT_HOP6), (HOST4, HOST6), (A, B)),
        ):
            node, world = f"n{number}", self.worlds[number - 1]
            self.ip(node, f"link add {TUNNEL} mtu 1450 type vxlan external nolearning dstport {TUNNEL_PORT}")
            self.ip(node, f"link set {TUNNEL} arp off up")
            self.attach(number, [(TUNNEL, "ingress", FROM_OVERLAY), (TUNNEL, "egress", TO_OVERLAY)])
            for address in there:
                value = IpcacheValue(identity=6, node=address16(there[0]))
                world.ipcache.put(IpcacheKey.of(ip_network(address)), value)
            for pod in others:
                for address, source in zip((pod.address4, pod.address6), own, strict=True):
                    value = IpcacheValue(identity=pod.identity, node=address16(there[0]))
                    world.ipcache.put(IpcacheKey.of(ip_network(address)), value)
                    self.ip(node, f"route replace {address} dev {TUNNEL} src {source}")
            index, nat4 = self.ifindex(node, TUNNEL), address16(own[0])
            port = TUNNEL_PORT if by_programs else 0
            config = replace(world.runtime[0], tunnel_ifindex=index, tunnel_port=port, nat4=nat4)
            world.runtime.put(0, config)
            world.raise_epoch()

    def stop(self) -> None:
        """Leave nothing."""
        for world in self.worlds:
            world.close()
        for name in ("A", "B", "R", "n1", "n2"):
            subprocess.run(
                ["ip", "netns", "del", self.ns(name)], check=False, timeout=10, capture_output=True
            )
        for pins in self.pins:
            shutil.rmtree(pins, ignore_errors=True)

    def ping(self, where: str, address: str, *, size: int = 56, ttl: int = 64, wait: float = 2) -> str:
        """Who answers an echo request within *wait* seconds, and how: ``ADDRESS reply``, ``ADDRESS exceeded``
        or ``silence``.
        """
        arguments = (address, str(size), str(ttl), str(wait))
        return self.run(where, sys.executable, "-S", "-c", PING, *arguments).stdout.strip()
