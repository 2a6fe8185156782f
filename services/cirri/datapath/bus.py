"""Where the bus is, so that the node's own policy does not take the way to it."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

PORT = 4222
"""Of NATS, where the URL names none."""


class BusPlace(NamedTuple):
    """Where the bus listens."""

    port: int
    addresses: frozenset[str] = frozenset()

    def among(self, own: Iterable[str]) -> bool:
        """Whether it runs on the node with the addresses *own*."""
        here = {ip_address(each) for each in own}
        return any((found := ip_address(each)).is_loopback or found in here for each in self.addresses)


def bus_place(urls: str) -> BusPlace:
    """Of the servers at *urls*, comma separated.  Blocks: names are looked up, if that can be done."""
    port, addresses = PORT, set()
    for url in urls.split(","):
        parts = urlsplit(url)
        port = parts.port or PORT
        with suppress(OSError):
            found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
            addresses |= {str(each[4][0]).partition("%")[0] for each in found}
    return BusPlace(port, frozenset(addresses))
