"""Sockets of a network namespace: connected UDP ones told that their peer is gone, TCP ones that listen.

Source: linux/inet_diag.h, linux/sock_diag.h; sock_diag(7).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Container, Iterator

from cirri.layout.address import address16
from cirri.netlink.channel import HEADER, Channel, Request

SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 20, 21
NETLINK_SOCK_DIAG = 4
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
ASK = struct.Struct("=BBBBI")
"""struct inet_diag_req_v2 up to ``id``: family, protocol, extensions, pad, states."""
ID = struct.Struct("=4s16s16sIQ")
"""struct inet_diag_sockid: ports, source, destination, device, cookie."""
CONNECTED = 1 << 1
"""TCP_ESTABLISHED, which connected UDP sockets are as well."""
LISTENING = 1 << 10
"""TCP_LISTEN."""
ID_AT = HEADER.size + 4
"""Of ``id`` in struct inet_diag_msg, after family, state, timer and retransmissions."""

End = tuple[int, bytes, int]
"""(cookie of the socket, address of its peer as in maps, port of its peer)"""


def end_udp(ends: Container[End]) -> int:
    """Have the connected UDP sockets of the caller's namespace that *ends* name fail; how many there were.

    Raises:
        NetlinkRefused: the kernel cannot do that (CONFIG_INET_DIAG_DESTROY).
    """
    with Channel(NETLINK_SOCK_DIAG) as channel:
        found = [request for family in (socket.AF_INET, socket.AF_INET6)
                 for request in _named(channel, family, ends)]  # fmt: skip
        channel.apply(found)
    return len(found)


def _named(channel: Channel, family: int, ends: Container[End]) -> Iterator[Request]:
    everything = ASK.pack(family, socket.IPPROTO_UDP, 0, 0, CONNECTED) + ID.pack(b"", b"", b"", 0, 0)
    for message in channel.dump(_message(SOCK_DIAG_BY_FAMILY, REQUEST | DUMP, everything)):
        ports, _, peer, _, cookie = ID.unpack_from(message, ID_AT)
        address = address16(socket.inet_ntop(family, peer[: 4 if family == socket.AF_INET else 16]))
        if (cookie, address, int.from_bytes(ports[2:], "big")) not in ends:
            continue
        id_ = message[ID_AT : ID_AT + ID.size]
        destroy = ASK.pack(family, socket.IPPROTO_UDP, 0, 0, CONNECTED) + id_
        yield Request(
            _message(SOCK_DESTROY, REQUEST | ACK, destroy),
            "end a UDP socket whose peer is gone",
            ignore=frozenset((errno.ENOENT,)),
        )


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, 0, 0) + body


def listening_tcp() -> set[tuple[str, int]]:
    """(address, port) of each TCP socket that listens in the caller's namespace.  Raises: NetlinkRefused."""
    found = set()
    with Channel(NETLINK_SOCK_DIAG) as channel:
        for family in (socket.AF_INET, socket.AF_INET6):
            listening = ASK.pack(family, socket.IPPROTO_TCP, 0, 0, LISTENING) + ID.pack(b"", b"", b"", 0, 0)
            for message in channel.dump(_message(SOCK_DIAG_BY_FAMILY, REQUEST | DUMP, listening)):
                ports, own, *_ = ID.unpack_from(message, ID_AT)
                address = socket.inet_ntop(family, own[: 4 if family == socket.AF_INET else 16])
                found.add((address, int.from_bytes(ports[:2], "big")))
    return found
