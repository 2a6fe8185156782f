"""Announcements as they lie on the wire.  Pure.

Sources: RFC 5227, section 3 (ARP announcements; some hosts heed only answers, so there are both);
RFC 4861, section 7.2.6 (unsolicited neighbour advertisements).
"""

from __future__ import annotations

import struct
from ipaddress import IPv6Address, ip_address

BROADCAST, ALL_NODES = b"\xff" * 6, bytes.fromhex("333300000001")
_ALL_NODES6 = IPv6Address("ff02::1").packed
_ARP, _IPV6, _ICMPV6 = 0x0806, 0x86DD, 58
_ADVERTISEMENT, _OVERRIDE, _TARGET_OPTION = 136, 0x20000000, 2


def announcements(address: str, mac: bytes) -> tuple[bytes, ...]:
    """The frames that say that *address* is at *mac*."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address):
        return (_advertisement(parsed.packed, mac),)
    return tuple(_arp(operation, parsed.packed, mac) for operation in (1, 2))


def _arp(operation: int, address: bytes, mac: bytes) -> bytes:
    target = bytes(6) if operation == 1 else mac
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return BROADCAST + mac + struct.pack("!H", _ARP) + head + mac + address + target + address


def _advertisement(address: bytes, mac: bytes) -> bytes:
    message = struct.pack("!BBHI16sBB6s", _ADVERTISEMENT, 0, 0, _OVERRIDE, address, _TARGET_OPTION, 1, mac)
    pseudo = address + _ALL_NODES6 + struct.pack("!II", len(message), _ICMPV6)
    message = message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]
    header = struct.pack("!IHBB16s16s", 6 << 28, len(message), _ICMPV6, 255, address, _ALL_NODES6)
    return ALL_NODES + mac + struct.pack("!H", _IPV6) + header + message


def checksum(data: bytes) -> int:
    """Of *data*, an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
