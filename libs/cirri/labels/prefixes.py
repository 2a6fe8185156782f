"""The labels of an address prefix that a policy names."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

CIDR = "cidr"
"""Source of the label that stands for a prefix."""

Network = IPv4Network | IPv6Network


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
