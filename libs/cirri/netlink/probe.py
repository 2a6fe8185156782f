"""What the running kernel can do with devices and sockets.  Nothing is made or changed by asking.

Source: linux/if_link.h, linux/netdev.h (generic netlink family "netdev"), linux/ethtool.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct
from enum import IntFlag

from cirri.netlink.channel import HEADER, Channel, Request
from cirri.netlink.errors import NetlinkRefused
from cirri.netlink.sockets import ASK, CONNECTED, ID, NETLINK_SOCK_DIAG, SOCK_DESTROY

RTM_NEWLINK, GENL_ID_CTRL, NETLINK_GENERIC = 16, 16, 16
REQUEST, ACK, CREATE, EXCLUSIVE = 0x1, 0x4, 0x400, 0x200
IFLA_IFNAME, IFLA_LINKINFO, IFLA_INFO_KIND, IFLA_INFO_DATA = 3, 18, 1, 2
CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 3, 1, 2
NETDEV_CMD_DEV_GET, NETDEV_A_DEV_IFINDEX, NETDEV_A_DEV_XDP_FEATURES = 1, 1, 3
SIOCETHTOOL, ETHTOOL_GDRVINFO = 0x8946, 3
WRONG: dict[str, tuple[int, int]] = {"vxlan": (1, 0xFFFF_FFFF), "netkit": (3, 99)}
"""Of a kind of device: (attribute, a value that it never has), so that it is not made."""
_ATTRIBUTE = struct.Struct("=HH")
_GENERIC = HEADER.size + 4
"""Where attributes begin in an answer of generic netlink."""


class XdpAct(IntFlag):
    """``enum netdev_xdp_act``, as far as it matters here."""

    BASIC = 1
    """Programs run in the driver: drop, pass, send back."""
    REDIRECT = 2
    """They may send to other devices."""
    NDO_XMIT = 4
    """The device takes what other devices' programs send."""


def has_kind(kind: str) -> bool:
    """Whether devices of *kind* (one of :data:`WRONG`) can be made; a module is loaded if need be.

    Raises:
        NetlinkRefused: this process may not make devices.
    """
    attribute, value = WRONG[kind]
    data = _nested(IFLA_INFO_DATA, _attribute(attribute, struct.pack("=I", value)))
    info = _nested(IFLA_LINKINFO, _attribute(IFLA_INFO_KIND, kind.encode()) + data)
    body = bytes(16) + _attribute(IFLA_IFNAME, b"cirri_probe\0") + info
    try:
        with Channel() as channel:
            message = _message(RTM_NEWLINK, REQUEST | ACK | CREATE | EXCLUSIVE, body)
            channel.apply([Request(message, f"make a device of kind {kind}")])
    except NetlinkRefused as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise
        return error.errno != errno.EOPNOTSUPP
    raise AssertionError(f"the kernel made a device of kind {kind} with a value that means nothing")


def xdp_features(index: int) -> XdpAct | None:
    """What the driver of the device with *index* does for XDP; None: kernels before 6.3 do not say."""
    try:
        with Channel(NETLINK_GENERIC) as channel:
            name = _attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0")
            (family,) = _asked(channel, GENL_ID_CTRL, (CTRL_CMD_GETFAMILY, name), CTRL_ATTR_FAMILY_ID)
            device = _attribute(NETDEV_A_DEV_IFINDEX, struct.pack("=I", index))
            number = int.from_bytes(family, "little")
            (found,) = _asked(channel, number, (NETDEV_CMD_DEV_GET, device), NETDEV_A_DEV_XDP_FEATURES)
    except (NetlinkRefused, OSError, ValueError):
        return None
    return XdpAct(int.from_bytes(found, "little") & int(XdpAct.BASIC | XdpAct.REDIRECT | XdpAct.NDO_XMIT))


def driver(name: str) -> str:
    """The driver behind the device *name*; "" if it does not say."""
    said = ctypes.create_string_buffer(struct.pack("=I", ETHTOOL_GDRVINFO), 196)
    request = struct.pack("=16sQ16x", name.encode(), ctypes.addressof(said))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        try:
            fcntl.ioctl(asking, SIOCETHTOOL, request)
        except OSError:
            return ""
    return said.raw[4:36].split(b"\0", 1)[0].decode(errors="replace")


def ends_sockets() -> bool:
    """Whether sockets of others can be ended (CONFIG_INET_DIAG_DESTROY); one that nobody has is named.

    Raises:
        NetlinkRefused: this process may not.
    """
    nobody = ASK.pack(socket.AF_INET, socket.IPPROTO_UDP, 0, 0, CONNECTED)
    nobody += ID.pack(b"", b"", b"", 0, 0xFFFF_FFFF_FFFF_FFFE)
    try:
        with Channel(NETLINK_SOCK_DIAG) as channel:
            channel.apply([Request(_message(SOCK_DESTROY, REQUEST | ACK, nobody), "end a socket")])
    except NetlinkRefused as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise
        return error.errno == errno.ENOENT
    return True


def has_sctp() -> bool:
    """Whether sockets of SCTP can be opened; its module is loaded if need be."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


def _asked(channel: Channel, family: int, ask: tuple[int, bytes], wanted: int) -> list[bytes]:
    """The values of attribute *wanted* in the answer to command and attributes *ask*."""
    command, attributes = ask
    body = struct.pack("=BBH", command, 1, 0) + attributes
    found = []
    for message in channel.dump(_message(family, REQUEST | ACK, body)):
        at = _GENERIC
        while at + _ATTRIBUTE.size <= len(message):
            length, kind = _ATTRIBUTE.unpack_from(message, at)
            if kind & 0x3FFF == wanted:
                found.append(message[at + _ATTRIBUTE.size : at + length])
            at += max(_ATTRIBUTE.size, length + 3 & ~3)
    return found


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _nested(kind: int, content: bytes) -> bytes:
    return _attribute(kind | 0x8000, content)


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, 0, 0) + body
