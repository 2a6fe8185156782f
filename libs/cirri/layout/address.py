"""Mirror of ``bpf/lib/address.h``: addresses are 128 bits everywhere, IPv4 as ``::ffff:a.b.c.d``."""

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

V4_MAPPED = bytes(10) + b"\xff\xff"
"""First 12 bytes of every IPv4 address (RFC 4291, section 2.5.5.2)."""
V4_BITS = 96
"""What an IPv4 prefix length counts more as an IPv6 one."""


def address16(ip: str | bytes | Address) -> bytes:
    """The 16 bytes of *ip* in network order; bytes of 4 or 16 are taken as packed addresses.

    Raises:
        ValueError: *ip* is no address.
    """
    if isinstance(ip, str):
        try:
            packed = socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)
        except OSError:
            raise ValueError(f"{ip!r} is not an IP address") from None
    else:
        packed = ip if isinstance(ip, bytes) else ip.packed
    if len(packed) == 4:
        return V4_MAPPED + packed
    if len(packed) != 16:
        raise ValueError(f"an address has 4 or 16 bytes, not {len(packed)}")
    return packed


def address_of(raw: bytes) -> Address:
    """The address in *raw*: IPv4 if it is a mapped one.  Inverse of :func:`address16`."""
    if raw.startswith(V4_MAPPED):
        return IPv4Address(raw[12:])
    return IPv6Address(raw)


def address_text(raw: bytes) -> str:
    """``str(address_of(raw))``, several times as fast."""
    if raw.startswith(V4_MAPPED):
        return socket.inet_ntop(socket.AF_INET, raw[12:])
    text = socket.inet_ntop(socket.AF_INET6, raw)
    return text if "." not in text else str(IPv6Address(raw))


def prefix16(network: Network) -> tuple[int, bytes]:
    """(bits, address) of *network* in the 128-bit space."""
    bits = network.prefixlen + (V4_BITS if network.version == 4 else 0)
    return bits, address16(network.network_address)


def network_of(bits: int, raw: bytes) -> Network:
    """Inverse of :func:`prefix16`."""
    if bits >= V4_BITS and raw.startswith(V4_MAPPED):
        return IPv4Network((raw[12:], bits - V4_BITS))
    return IPv6Network((raw, bits))
