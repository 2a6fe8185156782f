"""Real traffic through the programs: what a test run cannot show (redirects, neighbours, offloads)."""

import struct
import subprocess
import sys
import time

import pytest

from cirri.layout import DropReason, EndpointFlag, EndpointValue, address16
from cirri.testing.datapath import HOST4, HOST6, NEXT_HOP4, R4, R6, A, B
from cirri.testing.packets import V4, frame
from cirri.testing.transparent import DIGEST_CLIENT, DIGEST_SERVER
from cirri.testing.two_nodes import TwoNodes

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
def test_ping(nodes: TwoNodes, to: str) -> None:
    """First with neighbours unknown everywhere: the gateway answers for itself."""
    where, address = TO[to]
    assert nodes.ping(where, address) == f"{address} reply", [e for w in nodes.worlds for e in w.events()]


@pytest.mark.parametrize("to", list(TO)[:6])
def test_fragments(nodes: TwoNodes, to: str) -> None:
    """3000 bytes do not fit a frame; the receiver puts them together again."""
    where, address = TO[to]
    assert nodes.ping(where, address, size=3000) == f"{address} reply"


@pytest.mark.parametrize("to", list(TO)[:4])
def test_stream(nodes: TwoNodes, to: str) -> None:
    """2 MB of TCP in large segments arrive as they were sent."""
    where, address = TO[to]
    pod = "B" if address in (B.address4, B.address6) else "R"
    enter = ["nsenter", f"--net=/run/netns/{nodes.ns(pod)}", sys.executable, "-S", "-u", "-c", DIGEST_SERVER]
    with subprocess.Popen(enter, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            assert server.stdout.readline() == "ready\n"
            nodes.run(where, sys.executable, "-S", "-c", DIGEST_CLIENT, address)
        finally:
            server.kill()


def test_last_hop_is_answered_by_the_node(nodes: TwoNodes) -> None:
    assert nodes.ping("A", B.address4, ttl=1) == f"{HOST4} exceeded"
    assert nodes.ping("A", B.address6, ttl=1) == f"{HOST6} exceeded"
    assert nodes.ping("A", R4, ttl=2) == f"{NEXT_HOP4} exceeded"


def test_policy_on_the_other_node(nodes: TwoNodes) -> None:
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


def emit(nodes: TwoNodes, frames: list[bytes], reason: DropReason) -> int:
    """Have pod A send *frames* as they are; how many packets node 1 dropped meanwhile for *reason*."""
    nodes.worlds[0].counted_since()
    subprocess.run(
        ["nsenter", f"--net=/run/netns/{nodes.ns('A')}", sys.executable, "-S", "-c", SEND],
        input="\n".join(f.hex() for f in frames),
        check=True,
        text=True,
        timeout=30,
    )
    dropped = 0
    deadline = time.monotonic() + 3
    while dropped < len(frames) and time.monotonic() < deadline:  # a busy node has them later
        counted = nodes.worlds[0].counted_since().items()
        dropped += sum(packets for (why, _), (packets, _) in counted if why == reason)
    return dropped


def test_tag_that_the_kernel_took_off(nodes: TwoNodes) -> None:
    """A tag in the frame is beside the packet when the program sees it."""
    plain = frame("A", V4.udp(A.address4, B.address4))
    tagged = plain[:12] + struct.pack("!HH", 0x8100, 5) + plain[12:]
    assert emit(nodes, [tagged] * 3, DropReason.VLAN_FILTERED) == 3


def test_frames_too_short_for_a_header(nodes: TwoNodes) -> None:
    whole4 = frame("A", V4.udp(A.address4, B.address4))
    frames = [whole4[:length] for length in range(15, 34)]
    assert emit(nodes, frames, DropReason.INVALID) == len(frames)


def test_listening_is_not_needed_to_be_judged(nodes: TwoNodes) -> None:
    """A closed port answers with an ICMP error, which belongs to the datagram."""
    client = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3)\n"
        f"s.connect(({B.address4!r}, 9)); s.send(b'?')\n"
        "try: s.recv(9)\nexcept ConnectionRefusedError: print('refused')"
    )
    assert nodes.run("A", sys.executable, "-S", "-c", client).stdout == "refused\n"


@pytest.mark.parametrize("address", [R4, R6])
def test_a_pod_with_too_large_frames_is_told(nodes: TwoNodes, address: str) -> None:
    """Its device takes 3000 bytes, the uplink 1500: the node answers, and the pod cuts its packets."""
    for where, device in (("n1", "va"), ("A", "eth0")):
        nodes.ip(where, f"link set {device} mtu 3000")
    try:
        # The first one tells the pod; only who is told knows.
        assert [nodes.ping("A", address, size=2000) for _ in range(2)][1] == f"{address} reply"
    finally:
        for where, device in (("A", "eth0"), ("n1", "va")):
            nodes.ip(where, f"link set {device} mtu 1500")
