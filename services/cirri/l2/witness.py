"""Nodes whose beats are late are asked on the segment for what they hold: kernels answer.  An edge."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from cirri.l2.frames import advertised, arp_sender, question

_ARP = 0x0806
_FILTER, _ADVERTISEMENT = 1, 136
"""ICMP6_FILTER (linux/icmpv6.h), and the type of message that it lets pass."""
MOST = 64
"""Answers that are read at once."""


class Witness:
    """Asks by the node's device, and tells of each answer."""

    def __init__(self, device: str, mac: bytes, told: Callable[[str, bytes], None]) -> None:
        """*told*: called with the address and the MAC of each answer."""
        self._device, self._mac, self._told = device, mac, told
        self._arp: socket.socket | None = None
        self._nd: socket.socket | None = None

    def open(self) -> None:
        """Listen for answers.  Raises: OSError."""
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        self._arp = socket.socket(socket.AF_PACKET, kind, socket.htons(_ARP))
        self._arp.bind((self._device, _ARP))
        # A packet socket for IPv6 would cost every packet that comes; all nodes are told of these answers.
        self._nd = socket.socket(socket.AF_INET6, kind, socket.IPPROTO_ICMPV6)
        self._nd.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._device.encode())
        blocked = [0xFFFFFFFF] * 8
        blocked[_ADVERTISEMENT >> 5] &= ~(1 << (_ADVERTISEMENT & 31))
        self._nd.setsockopt(socket.IPPROTO_ICMPV6, _FILTER, struct.pack("8I", *blocked))
        loop = asyncio.get_running_loop()
        loop.add_reader(self._arp, self._read, self._arp, arp_sender)
        loop.add_reader(self._nd, self._read, self._nd, advertised)

    def ask(self, address: str, mac: bytes) -> None:
        """Have the kernel of the node at *mac* answer for *address*; what cannot be sent is not answered."""
        if self._arp is not None:
            with suppress(OSError):
                self._arp.send(question(address, self._mac, mac))

    def close(self) -> None:
        """Listen no more."""
        for each in (self._arp, self._nd):
            if each is not None:
                asyncio.get_running_loop().remove_reader(each)
                each.close()
        self._arp = self._nd = None

    def _read(self, own: socket.socket, parse: Callable[[bytes], tuple[str, bytes] | None]) -> None:
        with suppress(OSError):
            for _ in range(MOST):
                if (found := parse(own.recv(128))) is not None:
                    self._told(*found)
