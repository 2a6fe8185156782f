"""Announcements as they lie on the wire.  Pure.

Sources: RFC 5227, section 3 (ARP announcements; some hosts heed only answers, so there are both);
RFC 4861, section 7.2.6 (unsolicited neighbour advertisements), 4.3 (solicitations).
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

BROADCAST, ALL_NODES = b"\xff" * 6, bytes.fromhex("333300000001")
_ALL_NODES6 = IPv6Address("ff02::1").packed
_SOLICITED6 = IPv6Address("ff02::1:ff00:0").packed[:13]
_ARP, _IPV6, _ICMPV6 = 0x0806, 0x86DD, 58
_SOLICITATION = 135
_ADVERTISEMENT, _OVERRIDE, _TARGET_OPTION = 136, 0x20000000, 2


def announcements(address: str, mac: bytes) -> tuple[bytes, ...]:
    """The frames that say that *address* is at *mac*."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address):
        return (_advertisement(parsed.packed, mac),)
    return tuple(_arp(operation, parsed.packed, mac) for operation in (1, 2))


def question(address: str, mac: bytes, to: bytes) -> bytes:
    """The frame that asks the machine at *to* alone who has *address*; no neighbour entry changes.

    An IPv6 one is answered to all (RFC 4862, section 5.4.3).
    """
    parsed = ip_address(address)
    if isinstance(parsed, IPv4Address):
        head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
        return to + mac + struct.pack("!H", _ARP) + head + mac + bytes(10) + parsed.packed
    group = _SOLICITED6 + parsed.packed[-3:]
    return to + mac + _icmp6(bytes(16), group, struct.pack("!BBHI16s", _SOLICITATION, 0, 0, 0, parsed.packed))


def arp_sender(frame: bytes) -> tuple[str, bytes] | None:
    """(address, MAC) that an ARP answer names; None: it is none."""
    if len(frame) < 42 or frame[12:14] != b"\x08\x06" or frame[20:22] != b"\0\2":
        return None
    return str(IPv4Address(frame[28:32])), frame[22:28]


def advertised(message: bytes) -> tuple[str, bytes] | None:
    """(address, MAC) that a neighbour advertisement (from ICMPv6 on) names; None: it is none."""
    if len(message) < 32 or message[0] != _ADVERTISEMENT or message[24:26] != b"\2\1":
        return None
    return str(IPv6Address(message[8:24])), message[26:32]


def _arp(operation: int, address: bytes, mac: bytes) -> bytes:
    target = bytes(6) if operation == 1 else mac
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return BROADCAST + mac + struct.pack("!H", _ARP) + head + mac + address + target + address


def _advertisement(address: bytes, mac: bytes) -> bytes:
    message = struct.pack("!BBHI16sBB6s", _ADVERTISEMENT, 0, 0, _OVERRIDE, address, _TARGET_OPTION, 1, mac)
    return ALL_NODES + mac + _icmp6(address, _ALL_NODES6, message)


def _icmp6(source: bytes, target: bytes, message: bytes) -> bytes:
    """From the Ethernet type on; *message* without a checksum."""
    pseudo = source + target + struct.pack("!II", len(message), _ICMPV6)
    message = message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]
    header = struct.pack("!IHBB16s16s", 6 << 28, len(message), _ICMPV6, 255, source, target)
    return struct.pack("!H", _IPV6) + header + message


def checksum(data: bytes) -> int:
    """Of *data*, an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
