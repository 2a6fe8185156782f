"""Veth pairs as wires on which XDP can send: what drivers of network cards do by themselves."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from cirri.layout import NEXTHOPS, address16
from cirri.maps import Objects, attach_xdp, open_per_cpu

SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17
PROGRAM = "bpf_xdp"


def sum_up(device: str) -> None:
    """Have what leaves by *device* carry whole checksums: XDP frames cannot say that they are to be made."""
    value = ctypes.create_string_buffer(struct.pack("=2I", ETHTOOL_STXCSUM, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, SIOCETHTOOL, struct.pack("=16sQ16x", device.encode(), ctypes.addressof(value)))


def receive(objects: Path, pins: Path, devices: Iterable[str]) -> None:
    """Have *devices* (of the caller's namespace) get what their other ends send by XDP.

    A veth device does only while it runs a program: here one that knows nobody, pinned in *pins*.
    """
    with Objects.load(objects, pins, names=[PROGRAM]) as loaded:
        for device in devices:
            attach_xdp(loaded["xdp.frags"], socket.if_nametoindex(device), pins / f"xdp-{device}")


def turned(bpffs: Path, address: str) -> bool:
    """Whether XDP of the node with *bpffs* has sent anything to *address*: it remembers how."""
    with open_per_cpu(bpffs, NEXTHOPS) as nexthops:
        return any(one.address == address16(address) for _, each in nexthops.items() for one in each)
