"""The labels of an address prefix that a policy names."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

CIDR = "cidr"
"""Source of the label that stands for a prefix."""

Network = IPv4Network | IPv6Network

_LENGTH = re.compile(r"[0-9]{1,3}")


@lru_cache(maxsize=1 << 16)
def parse_prefix(text: str, *, bare: bool = True) -> Network | str:
    """The network that a user's *text* names, or what is wrong with it.

    Host bits are masked.  With *bare* an address without a length stands for itself.
    """
    if not text:
        return "an address is missing: the string is empty"
    address, slash, length = text.partition("/")
    if not slash and not bare and _is_address(text):
        return f'"{text}" has no prefix length; write {text}/{128 if ":" in text else 32} for one address'
    try:
        if (slash and not _LENGTH.fullmatch(length)) or (not slash and not bare) or "%" in address:
            raise ValueError
        network = ip_network(text, strict=False)
    except ValueError:
        wanted = "an address or a prefix" if bare else "a prefix"
        return f'"{text}" is not {wanted}, such as 10.0.0.0/8 or 2001:db8::/32'
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        return f'"{text}" is IPv4 in IPv6 notation; write it as an IPv4 prefix'
    return network


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def prefix_key(prefix: Network) -> str:
    """The label key of *prefix*: itself, with ``-`` for the ``:`` of IPv6, which a key may not have.

    ``10.0.0.0/8`` and ``2001-db8--0/32``: a ``0`` keeps the ends alphanumeric.
    """
    address = str(prefix.network_address).replace(":", "-")
    address = "0" * address.startswith("-") + address + "0" * address.endswith("-")
    return f"{address}/{prefix.prefixlen}"


def prefix_of(key: str) -> Network:
    """The prefix with label key *key*.  Raises ValueError."""
    return ip_network(key.replace("-", ":"))


def world_label(version: int) -> str:
    """The label of everybody outside the cluster with addresses of IP *version*."""
    return f"reserved:world-ipv{version}"


def prefix_labels(prefix: Network) -> tuple[str, ...]:
    """Labels of the identity of addresses for which *prefix* is the longest that a policy names, sorted.

    A selector for a wider prefix matches by containment, so another prefix changes nothing here.
    Prefixes of length 0 are the world itself and need no identity.
    """
    return (f"{CIDR}:{prefix_key(prefix)}", world_label(prefix.version))
