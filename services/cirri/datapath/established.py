"""The node's own TCP connections, told to programs before these begin to judge them.

A program that meets a connection in its middle takes the sender of the packet for who opened it.  A
session into the node could then be cut by a rule about what the node may send, or the bus's
connection by a rule about what it takes.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple

from cirri.layout import CtFlag, CtKey, CtValue, address16, address_of
from cirri.maps import BpfMap

TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
TCP = 6
ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LISTEN = 1, 4, 5, 8, 10
"""States of sockets (include/net/tcp_states.h)."""
IDLE_S = 21600
"""How long an entry stays without a packet, as for every established connection (bpf/lib/config.h)."""


class End(NamedTuple):
    """One end of a connection."""

    address: IPv4Address | IPv6Address
    port: int


class Connection(NamedTuple):
    """A connection by who opened it."""

    client: End
    server: End


def connections(tables: Iterable[str], own: Iterable[str]) -> Iterator[Connection]:
    """Connections that have an end at one of the addresses *own*, from the texts of :data:`TABLES`.

    Who listens at its port did not open the connection.
    """
    here = {ip_address(each) for each in own}
    sockets = [one for text in tables for one in _sockets(text)]
    listening = {local.port for local, _, state in sockets if state == LISTEN}
    for local, remote, state in sockets:
        if local.address in here and state in (ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT):
            yield Connection(remote, local) if local.port in listening else Connection(local, remote)


def remember(ct: BpfMap[CtKey, CtValue], own: Iterable[str], epoch: int) -> int:
    """Write the node's connections to *ct*, those that it has are left alone; how many.

    *epoch*: the one in force; their verdict is taken with the next packet.
    """
    texts = [path.read_text() for path in TABLES if path.exists()]
    expires = time.monotonic_ns() + IDLE_S * 10**9
    entries = {}
    for client, server in connections(texts, own):
        key = CtKey.of(client.address, client.port, server.address, server.port, TCP)
        flags = CtFlag.ESTABLISHED | CtFlag.SEEN_REPLY
        if key.ends(CtFlag.FROM_HIGH)[0] == (address16(client.address), client.port):
            flags |= CtFlag.FROM_HIGH
        if ct.get(key) is None:
            entries[key] = CtValue(expires=expires, flags=int(flags), epoch=(epoch - 1) & 0xFFFF_FFFF)
    return ct.put_many(entries.items())


def _sockets(text: str) -> Iterator[tuple[End, End, int]]:
    for line in text.splitlines()[1:]:
        fields = line.split()
        yield _end(fields[1]), _end(fields[2]), int(fields[3], 16)


def _end(text: str) -> End:
    """``0100007F:1F90``: the address as words of the CPU's byte order."""
    address, _, port = text.partition(":")
    raw = bytes.fromhex(address)
    words = [int.from_bytes(raw[at : at + 4], "big") for at in range(0, len(raw), 4)]
    packed = b"".join(socket.ntohl(word).to_bytes(4, "big") for word in words)
    return End(address_of(address16(packed)), int(port, 16))
