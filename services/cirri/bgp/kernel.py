"""What the node's kernel says that matters for sessions: gateways, addresses, TCP connections.  An edge."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple

from cirri.bgp.objects import Facts
from cirri.netlink import Channel
from cirri.netlink.read import addresses, links, routes

ESTABLISHED, SYN_SENT = 1, 2
LOCAL_PREFIXES = ("127.", "::1")


class Connection(NamedTuple):
    """A TCP connection of the node's namespace."""

    address: str
    port: int
    """Of the other end."""
    state: int
    unacknowledged: int
    """Bytes that the other end has not confirmed."""
    tries: int
    """How often the last segment was sent again."""


def facts() -> Facts:
    """Gateways and addresses.  Raises: NetlinkRefused."""
    with Channel() as channel:
        names = {link.index: name for name, link in links(channel).items()}
        ways = [each for each in routes(channel) if each.destination.prefixlen == 0 and each.gateway]
        own: dict[str, list[str]] = {}
        for each in addresses(channel):
            if not each.address.is_link_local and not str(each.address).startswith(LOCAL_PREFIXES):
                own.setdefault(names.get(each.index, ""), []).append(str(each.address))
    gateways: dict[int, str] = {
        way.destination.version: str(way.gateway) for way in sorted(ways, key=lambda w: -w.metric)
    }
    return Facts(gateways, {name: tuple(sorted(found)) for name, found in own.items()})


def connections() -> Iterator[Connection]:
    """Those that are being made or are there (proc(5), tcp)."""
    for name in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/self/net", name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            state = int(fields[3], 16)
            if state in (ESTABLISHED, SYN_SENT):
                address, port = fields[2].split(":")
                waiting = int(fields[4].split(":")[0], 16)
                yield Connection(_address(address), int(port, 16), state, waiting, int(fields[6], 16))


def wrong_passwords() -> int:
    """How many segments came with a password that is not the session's, or without one (TCP MD5)."""
    lines = Path("/proc/self/net/netstat").read_text().splitlines()
    found = 0
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        for name, value in zip(names.split(), values.split(), strict=True):
            found += int(value) if name in ("TCPMD5NotFound", "TCPMD5Unexpected", "TCPMD5Failure") else 0
    return found


def _address(digits: str) -> str:
    """An address as the kernel prints it: words in the order of the machine."""
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    packed = b"".join(socket.htonl(word).to_bytes(4) for word in words)
    found: IPv4Address | IPv6Address = ip_address(packed)
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return str(mapped or found)
