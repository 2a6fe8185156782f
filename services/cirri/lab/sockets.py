"""Sockets that outlive the processes that use them: socket activation as sd_listen_fds(3) has it.  An edge.

The supervisor opens each once and hands it to whoever names it: what arrives while one process is
replaced waits in the socket, or goes to the other that shares it.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from cirri.lab.enter import inside
from cirri.lab.services import Listening

BACKLOG = 4096
BUFFER = 4 << 20
IPV6_TRANSPARENT = 75
SO_RCVBUFFORCE = 33
"""Both are not in module socket."""


class Sockets:
    """All that are open, by what was asked for."""

    def __init__(self) -> None:
        self._open: dict[Listening, socket.socket] = {}

    def open(self, wanted: Sequence[Listening]) -> None:
        """Those of *wanted* that are not open yet.  Raises: OSError."""
        for listening in wanted:
            if listening not in self._open:
                with inside(listening.netns):
                    self._open[listening] = _listen(listening)

    def descriptors(self, wanted: Sequence[Listening]) -> list[int]:
        """Of *wanted*, which are open."""
        return [self._open[one].fileno() for one in wanted]


def _listen(listening: Listening) -> socket.socket:
    family = socket.AF_INET6 if ":" in listening.address else socket.AF_INET
    kind = socket.SOCK_STREAM if listening.transport == "tcp" else socket.SOCK_DGRAM
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, listening.mark)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if kind == socket.SOCK_DGRAM:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    sock.bind((listening.address, listening.port))
    if kind == socket.SOCK_STREAM:
        sock.listen(BACKLOG)
    return sock
