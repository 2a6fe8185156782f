"""Sockets that outlive the processes that use them: socket activation as sd_listen_fds(3) has it.  An edge.

The supervisor opens each once and hands it to whoever names it: what arrives while one process is
replaced waits in the socket, or goes to the other that shares it.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Sequence

from cirri.lab.enter import inside
from cirri.lab.services import Listening

FIRST_FD = 3
"""Where a process looks for them."""
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

    def hand_over(self, wanted: Sequence[Listening]) -> dict[str, str]:
        """In a child about to run its program: put *wanted* where it looks; settings that say so."""
        if not wanted:
            return {}
        above = FIRST_FD + len(wanted)
        copies = [fcntl.fcntl(self._open[w].fileno(), fcntl.F_DUPFD_CLOEXEC, above) for w in wanted]
        for number, copy in enumerate(copies, FIRST_FD):
            os.dup2(copy, number)
        names = ":".join(w.name for w in wanted)
        return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(wanted)), "LISTEN_FDNAMES": names}


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
