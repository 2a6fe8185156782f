"""The sockets: shared ones that pods' questions come to, and streams that speak for pods.

Those for datagrams that speak for pods and servers are made in ``core/sockets.c``.

Addresses are as the kernel writes them (struct sockaddr_in, sockaddr_in6): nothing is spelled out per packet.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress

FACES_CLIENT, FACES_SERVER = 0x0B00, 0x0B01
"""Marks of sockets: of what pods see, and of what servers see."""
_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75
_IP_ORIGINAL, _IPV6_ORIGINAL = 20, 74
_NO_PORT_YET = 24
"""IP_BIND_ADDRESS_NO_PORT: the port is chosen when the peer is known, so one port serves many peers."""
_BUFFER = 4 << 20
_FIRST_FD = 3
LOCAL = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
FAMILIES = (socket.AF_INET, socket.AF_INET6)


def inherited() -> list[socket.socket]:
    """Sockets given by the service manager (sd_listen_fds(3)); none if it gave none to this process."""
    if os.environ.get("LISTEN_PID", str(os.getpid())) != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    return [socket.socket(fileno=fd) for fd in range(_FIRST_FD, _FIRST_FD + count)]


def listening(port: int) -> list[socket.socket]:
    """UDP and TCP sockets for questions on *port* of both families; several instances may have them."""
    found = []
    for family in FAMILIES:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            try:
                one = _opened(family, kind, FACES_CLIENT)
            except OSError:
                if family == socket.AF_INET6:  # a machine without it
                    continue
                raise
            one.bind((LOCAL[family], port))
            found.append(one)
    return found


def prepare(one: socket.socket) -> None:
    """Make a listening socket, ours or inherited, tell what we need."""
    one.setblocking(False)
    if one.type == socket.SOCK_STREAM:
        one.listen(1024)
        return
    if one.family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, _IPV6_ORIGINAL, 1)
    else:
        one.setsockopt(socket.IPPROTO_IP, _IP_ORIGINAL, 1)
    _widen(one)


def speaking_as_pod(pod: str) -> socket.socket:
    """A stream from a pod's address and a random port, to be connected.

    Raises: OSError.
    """
    one = _opened(_family(pod), socket.SOCK_STREAM, FACES_SERVER)
    try:
        if one.family == socket.AF_INET:
            one.setsockopt(socket.IPPROTO_IP, _NO_PORT_YET, 1)
        one.bind((pod, 0))
    except OSError:
        one.close()
        raise
    return one


def packed_address(raw: bytes) -> bytes:
    """The 4 or 16 bytes of an address in *raw*."""
    return raw[4:8] if len(raw) == 16 else raw[8:24]


def spelled(raw: bytes) -> tuple[str, int]:
    """(address, port) in *raw*."""
    packed = packed_address(raw)
    return socket.inet_ntop(FAMILIES[len(packed) == 16], packed), int.from_bytes(raw[2:4], "big")


def written(address: tuple[str, int]) -> bytes:
    """*address* as the kernel writes it.  Inverse of :func:`spelled`."""
    host, port = address[:2]
    family = _family(host)
    head = int(family).to_bytes(2, sys.byteorder) + port.to_bytes(2, "big")
    packed = socket.inet_pton(family, host)
    return head + packed + bytes(8) if len(packed) == 4 else head + bytes(4) + packed + bytes(4)


def _opened(family: socket.AddressFamily, kind: socket.SocketKind, mark: int) -> socket.socket:
    one = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    if mark == FACES_CLIENT:  # every instance has one like it
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    else:
        one.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
    return one


def _widen(one: socket.socket) -> None:
    """Room for a burst, more than others may have where we may."""
    force = 33  # SO_RCVBUFFORCE
    with suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, force, _BUFFER)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
