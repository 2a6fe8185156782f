"""Packets as the views tell them."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from cirri.cli.context import NETNS_DIR
from cirri.cli.records import end_text, protocol_text

SEEN = struct.Struct("=3Q6I2H4B16s16s16s16s")
"""``struct seen`` of :mod:`cirri.cli.trace.source`."""


class Seen(NamedTuple):
    """A packet somewhere."""

    time: int
    """ns of CLOCK_MONOTONIC."""
    location: int
    """Address of the kernel's function, or 0."""
    point: int
    reason: int
    ifindex: int
    netns: int
    """Inode; 0: it is at no device."""
    length: int
    pid: int
    sport: int
    dport: int
    protocol: int
    sent: bool
    """It is of a local socket."""
    source: str
    destination: str
    comm: str
    device: str

    @property
    def ends(self) -> tuple[str, int, str, int, int]:
        """(source, its port, destination, its port, protocol)."""
        return self.source, self.sport, self.destination, self.dport, self.protocol


def seen(raw: bytes) -> Seen:
    """What the kernel's program wrote."""
    values = SEEN.unpack_from(raw)
    time, _, location, point, reason, ifindex, netns, length, pid, sport, dport = values[:11]
    _, protocol, sent, _, source, destination, comm, device = values[11:]
    return Seen(
        *(time, location, point, reason, ifindex, netns, length, pid),
        *(socket.ntohs(sport), socket.ntohs(dport), protocol, bool(sent), _address(source)),
        *(_address(destination), text(comm), text(device)),
    )


def text(raw: bytes) -> str:
    """Of C, up to its end."""
    return raw.split(b"\0", 1)[0].decode(errors="backslashreplace")


def clock(ns: int, offset_ns: int) -> str:
    """Of CLOCK_MONOTONIC, *offset_ns* behind the wall's, as RFC 3339."""
    when = datetime.fromtimestamp((ns + offset_ns) / 1e9, UTC)
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")


def flow_text(packet: Seen) -> str:
    """``10.0.0.1:40000 -> 10.0.0.2:80 TCP``."""
    source, destination = end_text(packet.source, packet.sport), end_text(packet.destination, packet.dport)
    return f"{source} -> {destination} {protocol_text(packet.protocol)}"


def _address(raw: bytes) -> str:
    address = IPv6Address(raw)
    return str(address.ipv4_mapped or ip_address(address))


def network_names() -> dict[int, str]:
    """Named network namespaces by inode; ``host`` is the first process's."""
    found = {}
    with suppress(OSError):
        found[os.stat("/proc/1/ns/net").st_ino] = "host"
    with suppress(OSError):
        for each in NETNS_DIR.iterdir():
            with suppress(OSError):
                found[each.stat().st_ino] = each.name
    return found
