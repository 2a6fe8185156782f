"""Real traffic through the programs: what a test run cannot show (redirects, neighbours, offloads).

::

    pod A ── va ┐                              ┌ vr ── pod R
                ├ node 1 ─ uplink ══ uplink ─ node 2
    pod B ── vb ┘

Two nodes on one kernel: each has its own pins, as in the lab.
"""

import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from uuid import uuid4

import pytest

from cirri.layout import (
    DropReason,
    EndpointFlag,
    EndpointValue,
    IpcacheKey,
    IpcacheValue,
    RuntimeConfig,
    address16,
)
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
from cirri.testing.packets import FROM_NETWORK, FROM_POD, TO_POD, V4, frame

R = Pod("R", R4, R6, R_IDENTITY, 13, 2003, "0a:00:00:00:00:0c", "0e:00:00:00:00:0c")
PING = """
import os, socket, struct, sys
address, size, ttl = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
six = ":" in address
s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, 58 if six else 1)
s.setsockopt(*((41, socket.IPV6_UNICAST_HOPS) if six else (0, socket.IP_TTL)), ttl)
s.settimeout(2)
body = struct.pack("!HH", os.getpid() & 0xFFFF, 1) + bytes(i & 255 for i in range(size))
def sum16(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16: total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
head = bytes([128 if six else 8, 0])
s.sendto(head + struct.pack("!H", 0 if six else sum16(head + bytes(2) + body)) + body, (address, 0))
try:
    while True:
        data, sender = s.recvfrom(65536)
        data = data if six else data[(data[0] & 15) * 4 :]
        if data[0] == (129 if six else 0) and data[4:] == body: print(sender[0], "reply"); break
        if data[0] == (3 if six else 11): print(sender[0], "exceeded"); break
except TimeoutError:
    print("silence")
"""
SERVER = """
import hashlib, socket
s = socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    c, _ = s.accept()
    h, n = hashlib.sha256(), 0
    while n < 2_000_000:
        d = c.recv(65536)
        if not d: break
        h.update(d); n += len(d)
    c.sendall(h.hexdigest().encode()); c.close()
"""
CLIENT = """
import hashlib, os, socket, sys
data = os.urandom(2_000_000)
with socket.create_connection((sys.argv[1], 7000), 5) as s:
    s.sendall(data)
    got = b""
    while len(got) < 64:
        piece = s.recv(64)
        if not piece: break
        got += piece
sys.exit(got.decode() != hashlib.sha256(data).hexdigest())
"""


class Nodes:
    """Two nodes, three pods, and the means to run something in each."""

    def __init__(self, built: Path) -> None:
        self.stem = f"cirri-test-{uuid4().hex[:6]}"
        self.pins = [Path(f"/sys/fs/bpf/{self.stem}-{n}") for n in (1, 2)]
        self.worlds: list[World] = []
        self.built = built

    def ns(self, name: str) -> str:
        """The network namespace of n1, n2, A, B or R."""
        return f"{self.stem}-{name}"

    def run(self, where: str, *command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run *command* there (`ip netns exec` would hide the BPF file system)."""
        return subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.ns(where)}", *command],
            check=check,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def ip(self, where: str, command: str) -> None:
        subprocess.run(["ip", "-n", self.ns(where), *command.split()], check=True, timeout=10)

    def ifindex(self, where: str, device: str) -> int:
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
        hooks = [("uplink", "ingress", FROM_NETWORK)]
        hooks += [(d, *hook) for d in devices for hook in (("ingress", FROM_POD), ("egress", TO_POD))]
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

    def stop(self) -> None:
        for world in self.worlds:
            world.close()
        for name in ("A", "B", "R", "n1", "n2"):
            subprocess.run(
                ["ip", "netns", "del", self.ns(name)], check=False, timeout=10, capture_output=True
            )
        for pins in self.pins:
            shutil.rmtree(pins, ignore_errors=True)

    def ping(self, where: str, address: str, *, size: int = 56, ttl: int = 64) -> str:
        """Who answers an echo request, and how: ``ADDRESS reply``, ``ADDRESS exceeded`` or ``silence``."""
        return self.run(where, sys.executable, "-S", "-c", PING, address, str(size), str(ttl)).stdout.strip()


@pytest.fixture(scope="module")
def nodes(built: Path) -> Iterator[Nodes]:
    made = Nodes(built)
    try:
        made.start()
        yield made
    finally:
        made.stop()


TO = {
    "the other pod, v4": ("A", B.address4),
    "the other pod, v6": ("A", B.address6),
    "a pod elsewhere, v4": ("A", R4),
    "a pod elsewhere, v6": ("A", R6),
    "the way back, v4": ("R", B.address4),
    "the way back, v6": ("R", B.address6),
    "its node, v4": ("A", HOST4),
    "its node, v6": ("A", HOST6),
    "a pod from its node, v4": ("n1", A.address4),
    "a pod from its node, v6": ("n1", A.address6),
}


@pytest.mark.parametrize("to", TO)
def test_ping(nodes: Nodes, to: str) -> None:
    """First with neighbours unknown everywhere: the gateway answers for itself."""
    where, address = TO[to]
    assert nodes.ping(where, address) == f"{address} reply", [e for w in nodes.worlds for e in w.events()]


@pytest.mark.parametrize("to", list(TO)[:6])
def test_fragments(nodes: Nodes, to: str) -> None:
    """3000 bytes do not fit a frame; the receiver puts them together again."""
    where, address = TO[to]
    assert nodes.ping(where, address, size=3000) == f"{address} reply"


@pytest.mark.parametrize("to", list(TO)[:4])
def test_stream(nodes: Nodes, to: str) -> None:
    """2 MB of TCP in large segments arrive as they were sent."""
    where, address = TO[to]
    pod = "B" if address in (B.address4, B.address6) else "R"
    enter = ["nsenter", f"--net=/run/netns/{nodes.ns(pod)}", sys.executable, "-S", "-u", "-c", SERVER]
    with subprocess.Popen(enter, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            assert server.stdout.readline() == "ready\n"
            nodes.run(where, sys.executable, "-S", "-c", CLIENT, address)
        finally:
            server.kill()


def test_last_hop_is_answered_by_the_node(nodes: Nodes) -> None:
    assert nodes.ping("A", B.address4, ttl=1) == f"{HOST4} exceeded"
    assert nodes.ping("A", B.address6, ttl=1) == f"{HOST6} exceeded"
    assert nodes.ping("A", R4, ttl=2) == f"{NEXT_HOP4} exceeded"


def test_policy_on_the_other_node(nodes: Nodes) -> None:
    """R denies: A's packets end on R's node."""
    second = nodes.worlds[1]
    values = {address: second.endpoints[address16(address)] for address in (R4, R6)}
    second.counted_since()
    try:
        for address, value in values.items():
            denied = EndpointValue(
                ifindex=value.ifindex,
                identity=value.identity,
                flags=EndpointFlag.ENFORCE_INGRESS,
                mac=value.mac,
                node_mac=value.node_mac,
            )
            second.endpoints.put(address16(address), denied)
        second.raise_epoch()
        assert nodes.ping("A", R4) == "silence"
        assert nodes.ping("A", R6) == "silence"
        assert second.counted_since()[DropReason.POLICY, 1][0] == 2
    finally:
        for address, value in values.items():
            second.endpoints.put(address16(address), value)
        second.raise_epoch()
    assert nodes.ping("A", R4) == f"{R4} reply"


SEND = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
for line in sys.stdin:
    s.send(bytes.fromhex(line))
"""


def emit(nodes: Nodes, frames: list[bytes]) -> dict[tuple[int, int], tuple[int, int]]:
    """Have pod A send *frames* as they are; what node 1 counted meanwhile."""
    nodes.worlds[0].counted_since()
    subprocess.run(
        ["nsenter", f"--net=/run/netns/{nodes.ns('A')}", sys.executable, "-S", "-c", SEND],
        input="\n".join(f.hex() for f in frames),
        check=True,
        text=True,
        timeout=30,
    )
    return nodes.worlds[0].counted_since()


def test_tag_that_the_kernel_took_off(nodes: Nodes) -> None:
    """A tag in the frame is beside the packet when the program sees it."""
    plain = frame("A", V4.udp(A.address4, B.address4))
    tagged = plain[:12] + struct.pack("!HH", 0x8100, 5) + plain[12:]
    counted = emit(nodes, [tagged] * 3)
    assert counted[DropReason.VLAN_FILTERED, 2][0] == 3
    assert (0, 2) not in counted


def test_frames_too_short_for_a_header(nodes: Nodes) -> None:
    whole4 = frame("A", V4.udp(A.address4, B.address4))
    frames = [whole4[:length] for length in range(15, 34)]
    counted = emit(nodes, frames)
    assert (0, 2) not in counted
    dropped = sum(packets for (reason, _), (packets, _) in counted.items() if reason)
    assert dropped == len(frames)


def test_listening_is_not_needed_to_be_judged(nodes: Nodes) -> None:
    """A closed port answers with an ICMP error, which belongs to the datagram."""
    client = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3)\n"
        f"s.connect(({B.address4!r}, 9)); s.send(b'?')\n"
        "try: s.recv(9)\nexcept ConnectionRefusedError: print('refused')"
    )
    assert nodes.run("A", sys.executable, "-S", "-c", client).stdout == "refused\n"
