"""Where the other ends of devices are: network namespaces, by the numbers that the caller's gives them.

Without pyroute2's message classes: they take 12 MB, and services that only watch need no others.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from cirri.netlink.channel import HEADER, Channel
from cirri.netlink.errors import NetlinkRefused

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
RTM_GETLINK, RTM_GETNSID = 18, 90
IFLA_IFNAME, IFLA_LINK_NETNSID = 3, 37
"""linux/if_link.h."""
NETNSA_NSID, NETNSA_FD = 1, 3
"""linux/net_namespace.h."""
_LINK_BYTES, _NAMESPACE_BYTES = 16, 4
"""``struct ifinfomsg``, and ``struct rtgenmsg`` to the next attribute."""
_NUMBER = struct.Struct("=i")
_ATTRIBUTE = struct.Struct("=HHi")


def peers(channel: Channel) -> dict[str, int]:
    """Device -> number of the namespace that its other end is in; devices without one are left out."""
    request = HEADER.pack(HEADER.size + _LINK_BYTES, RTM_GETLINK, REQUEST | DUMP, 0, 0) + bytes(_LINK_BYTES)
    found = {}
    for message in channel.dump(request):
        attributes = dict(_attributes(message, _LINK_BYTES))
        if IFLA_LINK_NETNSID in attributes:
            (number,) = _NUMBER.unpack(attributes[IFLA_LINK_NETNSID])
            if number >= 0:
                found[attributes[IFLA_IFNAME].rstrip(b"\0").decode(errors="replace")] = int(number)
    return found


def number_of(channel: Channel, fd: int) -> int | None:
    """The number of the namespace behind *fd*; None: the caller's has given it none."""
    body = bytes(_NAMESPACE_BYTES) + _ATTRIBUTE.pack(_ATTRIBUTE.size, NETNSA_FD, fd)
    request = HEADER.pack(HEADER.size + len(body), RTM_GETNSID, REQUEST | ACK, 0, 0) + body
    try:
        for message in channel.dump(request):
            attributes = dict(_attributes(message, _NAMESPACE_BYTES))
            if NETNSA_NSID in attributes:
                (number,) = _NUMBER.unpack(attributes[NETNSA_NSID])
                return int(number) if number >= 0 else None
    except NetlinkRefused:
        pass
    return None


def _attributes(message: bytes, body: int) -> Iterator[tuple[int, bytes]]:
    """(type, value) of what follows the *body* of so many bytes."""
    at = HEADER.size + body
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        yield kind, message[at + 4 : at + length]
        at += max(length + 3 & ~3, 4)
