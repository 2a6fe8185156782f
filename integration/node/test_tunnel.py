"""A node in tunnel mode; the test is the other node and speaks VXLAN itself.

::

     node2 172.31.A.1, UDP port 8472 (the test) ─── eth0 [node 172.31.A.2, cirri_vxlan] lxc… ─── pod web
"""

import asyncio
import json
import os
import socket
import struct
import subprocess
from itertools import product
from typing import Any

from cirri.model import NODES, NodeStatus, Resource
from cirri.testing.node import Node, Pod, answering, node
from cirri.testing.sockets import socket_in
from cirri.testing.wait import eventually

PORT = 8472
SO_NO_CHECK = 11
"""Of asm-generic/socket.h: without a checksum programs open a tunnel's packet, else the device does."""
FAR4, FAR6 = "10.59.4.5", "fd00:59::5"
RANGES = ("10.59.4.0/24", "fd00:59::/120")
MACS = bytes.fromhex("020000000077020000000078")


async def configure(here: Node, **data: str) -> None:
    """Have the cluster's configuration say *data*."""
    manifest = {"data": {key.replace("_", "-"): value for key, value in data.items()}}
    await here.cluster.put(
        Resource(kind="ConfigMap", namespace="kube-system", name="cirri-config", manifest=manifest)
    )


def led(here: Node) -> dict[str, dict[str, Any]]:
    """The node's routes to the other node's pods."""
    found: dict[str, dict[str, Any]] = {}
    for family in ("-4", "-6"):
        words = ["ip", "-n", here.name, "-j", family, "route", "show", "proto", "193"]
        routes = json.loads(subprocess.run(words, capture_output=True, check=True).stdout or b"[]")
        found |= {route["dst"]: route for route in routes if route["dst"] in RANGES}
    return found


def mtu(netns: str, device: str) -> int:
    """Of a device; 0 if there is none."""
    words = ["ip", "-n", netns, "-j", "link", "show", "dev", device]
    done = subprocess.run(words, capture_output=True, check=False)
    return int(json.loads(done.stdout)[0]["mtu"]) if done.returncode == 0 else 0


def datagram(source: str, destination: str, payload: bytes) -> bytes:
    """A UDP datagram over IPv4 from port 9 to port 9, without a checksum of its own."""
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 1, 0, 64, 17, 0,
                         socket.inet_aton(source), socket.inet_aton(destination))  # fmt: skip
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + header[12:]
    return header + struct.pack("!HHHH", 9, 9, 8 + len(payload), 0) + payload


def heard(wire: socket.socket, payload: bytes) -> tuple[int, bytes]:
    """The VNI of the tunnel's packet that ends with *payload*, and the inner packet."""
    while True:
        packet = wire.recv(4096)
        if packet.endswith(payload):
            return int.from_bytes(packet[4:7], "big"), packet[22:]


def say(netns: str, address: str, payload: bytes) -> None:
    """One datagram from *netns* to port 9 of *address*."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket_in(netns, socket.SOCK_DGRAM, family) as client:
        client.sendto(payload, (address, 9))


async def tunnelled(here: Node) -> Pod:
    """A pod of a node whose other node is the test, in tunnel mode."""
    other = here.bus.publisher(NODES, "node2")
    await other.start()
    addresses = (here.host, f"fd00:172:31:{here.number:x}::1")
    await other.replace([NodeStatus(node="node2", addresses=addresses, pod_cidrs=RANGES)])
    await eventually(lambda: {route.get("gateway") for route in led(here).values()} == set(addresses))
    old = await here.add("old")
    await configure(here, routing_mode="tunnel")
    await eventually(lambda: [route["dev"] for route in led(here).values()] == ["cirri_vxlan"] * 2)
    await eventually(lambda: mtu(old.netns, "eth0") == 1450, what="the pod that was there takes less")
    return await here.add("web")


def test_what_pods_and_the_node_send_and_what_comes_back() -> None:
    async def main() -> None:
        async with node() as here:
            web = await tunnelled(here)
            assert [each["mtu"] for each in web.result["interfaces"]] == [1450, 1450]
            said = "Tunnel [vxlan, port 8472, cirri_vxlan]"
            await eventually(lambda: here.status.features["routing"] == said)
            identity = next(e.identity for e in here.endpoints.values() if e.pod == "web")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
                wire.bind((here.host, PORT))
                wire.settimeout(5)
                for address in (FAR4, FAR6):
                    payload = os.urandom(16)
                    say(web.netns, address, payload)
                    vni, inner = await asyncio.to_thread(heard, wire, payload)
                    assert (vni, inner[0] >> 4) == (identity, 6 if ":" in address else 4)
                payload = os.urandom(16)
                say(here.name, FAR4, payload)
                vni, inner = await asyncio.to_thread(heard, wire, payload)
                assert (vni, socket.inet_ntoa(inner[12:16])) == (0, here.address)

                with socket_in(web.netns, socket.SOCK_DGRAM) as server:
                    server.bind((web.ipv4, 9))
                    server.settimeout(5)
                    for named, no_check in product((identity, 0), (0, 1)):
                        wire.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, no_check)
                        payload = os.urandom(16)
                        header = b"\x08\0\0\0" + (named << 8).to_bytes(4, "big")
                        frame = MACS + b"\x08\0" + datagram(FAR4, web.ipv4, payload)
                        wire.sendto(header + frame, (here.address, PORT))
                        assert await asyncio.to_thread(server.recv, 100) == payload

    asyncio.run(main())


def test_a_killed_service_leaves_the_tunnel_and_the_next_takes_it_back() -> None:
    async def main() -> None:
        async with node() as here:
            web = await tunnelled(here)
            before = led(here)
            here.kill()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
                wire.bind((here.host, PORT))
                wire.settimeout(5)
                payload = os.urandom(16)
                say(web.netns, FAR4, payload)
                await asyncio.to_thread(heard, wire, payload)
            here.start()
            await answering(here)
            assert led(here) == before
            assert mtu(here.name, "cirri_vxlan") == 1450

            await configure(here, routing_mode="native")
            await eventually(lambda: {route.get("gateway") for route in led(here).values()} >= {here.host})
            assert not mtu(here.name, "cirri_vxlan")
            await eventually(lambda: mtu(web.netns, "eth0") == 1500)

    asyncio.run(main())


def test_a_port_that_others_use_is_told_and_the_mode_before_holds() -> None:
    async def main() -> None:
        async with node() as here:
            taken = socket_in(here.name, socket.SOCK_DGRAM)
            with taken:
                taken.bind(("0.0.0.0", PORT))
                await configure(here, routing_mode="tunnel")
                await eventually(lambda: any("routing mode tunnel" in each for each in here.status.errors))
                assert here.status.features["routing"] == "Native"
            await eventually(lambda: here.status.features["routing"].startswith("Tunnel"))
            await eventually(lambda: not here.status.errors)

    asyncio.run(main())
