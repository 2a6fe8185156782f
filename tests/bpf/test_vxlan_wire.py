"""Tunnels' packets that programs make and open, on a real wire: beside those of the kernel's device, and
streams whose segments a NIC or the kernel cuts and joins."""

import ctypes
import fcntl
import hashlib
import os
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from msgspec.structs import replace

from cirri.testing.datapath import checksum
from cirri.testing.packets import FAMILIES, Family
from cirri.testing.sockets import socket_in
from cirri.testing.two_nodes import TUNNEL, TwoNodes

OUTER = 50
"""Bytes that a tunnel adds."""


@pytest.fixture(scope="module")
def pair(built: object) -> Iterator[TwoNodes]:
    """Two nodes with tunnels between them, and pods that know what fits."""
    made = TwoNodes()
    try:
        made.start()
        made.tunnel()
        for pod in ("A", "R"):
            made.ip(pod, "link set eth0 mtu 1450")
        yield made
    finally:
        made.stop()


@contextmanager
def by_the_device(pair: TwoNodes) -> Iterator[None]:
    """Programs make and open nothing."""
    before = [world.runtime[0] for world in pair.worlds]
    for world, was in zip(pair.worlds, before, strict=True):
        world.runtime.put(0, replace(was, tunnel_port=0))
    try:
        yield
    finally:
        for world, was in zip(pair.worlds, before, strict=True):
            world.runtime.put(0, was)


def passed_the_device(pair: TwoNodes) -> list[list[str]]:
    """What both nodes' devices counted so far."""
    lines = [pair.run(node, "cat", "/proc/net/dev").stdout.splitlines() for node in ("n1", "n2")]
    return [next(line.split() for line in each if TUNNEL in line) for each in lines]


def on_the_wire(pair: TwoNodes, f: Family, tos: int) -> bytearray:
    """The frame that carries a datagram of A to R."""
    family = socket.AF_INET if f.version == 4 else socket.AF_INET6
    payload = os.urandom(16)
    with (
        socket_in(pair.ns("n2"), socket.SOCK_RAW, socket.AF_PACKET) as wire,
        socket_in(pair.ns("A"), socket.SOCK_DGRAM, family) as pod,
    ):
        wire.bind(("uplink", 3))
        pod.setsockopt(*((0, socket.IP_TOS) if f.version == 4 else (41, socket.IPV6_TCLASS)), tos)
        pod.bind((f.a, 5000))
        pod.sendto(payload, (f.r, 9))
        while payload not in (found := wire.recv(4096)):
            pass
    return bytearray(found)


def comparable(f: Family, packet: bytearray) -> bytes:
    """*packet* without what differs between two datagrams of one pod."""
    assert checksum(bytes(packet[14:34])) == 0
    inner = OUTER + 14
    outside = [(18, 2), (24, 2), (34, 2)]  # identification, checksum, source port
    inside = [(inner + 4, 2), (inner + 10, 2), (inner + 26, 2)]  # the same, UDP's checksum
    if f.version == 6:
        inside = [(inner + 1, 3), (inner + 46, 2)]  # flow label and half of the traffic class, UDP's checksum
    for at, size in (*outside, *inside, (len(packet) - 16, 16)):
        packet[at : at + size] = bytes(size)
    return bytes(packet)


@pytest.mark.parametrize("tos", range(4))
@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
def test_bytes_are_the_devices(pair: TwoNodes, f: Family, tos: int) -> None:
    before = passed_the_device(pair)
    found = on_the_wire(pair, f, tos)
    assert passed_the_device(pair) == before
    with by_the_device(pair):
        expected = on_the_wire(pair, f, tos)
    assert passed_the_device(pair) != before
    assert comparable(f, found) == comparable(f, expected)


SIOCETHTOOL, STXCSUM, SGSO, SGRO = 0x8946, 0x17, 0x24, 0x2C
"""linux/sockios.h, linux/ethtool.h."""
ALL = {STXCSUM: 1, SGSO: 1, SGRO: 0}
WIRES: dict[str, Mapping[int, int]] = {
    "tunnels are cut by the NIC": {},
    "cut by the kernel": {SGSO: 0},
    "cut and summed by the kernel": {SGSO: 0, STXCSUM: 0},
    "cut, summed and joined by the kernel": {SGSO: 0, STXCSUM: 0, SGRO: 1},
}


def equip(pair: TwoNodes, features: Mapping[int, int]) -> None:
    """Switches features of the uplinks on or off."""
    for node in ("n1", "n2"):
        for command, on in features.items():
            value = ctypes.create_string_buffer(struct.pack("=II", command, on))
            with socket_in(pair.ns(node), socket.SOCK_DGRAM) as one:
                fcntl.ioctl(one, SIOCETHTOOL, struct.pack("=16sQ16x", b"uplink", ctypes.addressof(value)))


def digest(server: socket.socket, found: list[str]) -> None:
    """Of all that one client sends."""
    connection, _ = server.accept()
    with connection:
        connection.settimeout(10)
        so_far = hashlib.sha256()
        while data := connection.recv(1 << 20):
            so_far.update(data)
    found.append(so_far.hexdigest())


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
@pytest.mark.parametrize("wire", WIRES)
def test_streams(pair: TwoNodes, wire: str, f: Family) -> None:
    """Everything arrives, and nothing of it goes by the device."""
    family = socket.AF_INET if f.version == 4 else socket.AF_INET6
    sent, found = os.urandom(1 << 20) * 4, list[str]()
    before = passed_the_device(pair)
    equip(pair, WIRES[wire])
    try:
        with (
            socket_in(pair.ns("A"), socket.SOCK_STREAM, family) as server,
            socket_in(pair.ns("R"), socket.SOCK_STREAM, family) as client,
        ):
            server.bind((f.a, 0))
            server.listen()
            receiver = threading.Thread(target=digest, args=(server, found))
            receiver.start()
            client.settimeout(10)
            client.connect((f.a, server.getsockname()[1]))
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            receiver.join()
    finally:
        equip(pair, ALL)
    assert found == [hashlib.sha256(sent).hexdigest()]
    assert passed_the_device(pair) == before
