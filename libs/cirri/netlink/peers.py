"""Where the other ends of devices are: network namespaces, by the numbers that the caller's gives them."""

from __future__ import annotations

import struct

from cirri.netlink import messages as m
from cirri.netlink.channel import HEADER, Channel
from cirri.netlink.errors import NetlinkRefused
from cirri.netlink.read import decoded_links

RTM_GETNSID = 90
NETNSA_NSID, NETNSA_FD = 1, 3
"""linux/net_namespace.h."""
_ATTRIBUTE = struct.Struct("=HHi")


def peers(channel: Channel) -> dict[str, int]:
    """Device -> number of the namespace that its other end is in; devices without one are left out."""
    found = ((attrs["IFLA_IFNAME"], attrs.get("IFLA_LINK_NETNSID")) for attrs in decoded_links(channel))
    return {name: number for name, number in found if number is not None and number >= 0}


def number_of(channel: Channel, fd: int) -> int | None:
    """The number of the namespace behind *fd*; None: the caller's has given it none."""
    body = struct.pack("=Bxxx", 0) + _ATTRIBUTE.pack(_ATTRIBUTE.size, NETNSA_FD, fd)
    request = HEADER.pack(HEADER.size + len(body), RTM_GETNSID, m.REQUEST | m.ACK, 0, 0) + body
    try:
        for message in channel.dump(request):
            at = HEADER.size + 4
            while at + 4 <= len(message):
                length, kind = struct.unpack_from("=HH", message, at)
                if kind == NETNSA_NSID:
                    number = int(struct.unpack_from("=i", message, at + 4)[0])
                    return number if number >= 0 else None
                at += (length + 3) & ~3
    except NetlinkRefused:
        pass
    return None
