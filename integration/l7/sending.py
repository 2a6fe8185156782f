"""Bytes as they are, to a port behind the proxy."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from cirri.testing.proxied import Proxied


def send(world: Proxied, port: int, cases: Sequence[bytes], quiet_s: float) -> None:
    """Send each of *cases* in a connection of its own, all at once; return when nothing has been answered for
    *quiet_s* seconds."""
    with ExitStack() as stack, selectors.DefaultSelector() as waiting:
        for raw in cases:
            client = stack.enter_context(world.connect(port))
            client.sendall(raw)
            waiting.register(client, selectors.EVENT_READ)
        while ready := waiting.select(quiet_s):
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                try:
                    gone = not key.fileobj.recv(65536)
                except ConnectionResetError:
                    gone = True
                if gone:
                    waiting.unregister(key.fileobj)
