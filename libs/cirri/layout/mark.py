"""Mirror of ``bpf/lib/mark.h``: marks of packets and sockets (``SO_MARK``) of a node's proxies."""

from enum import IntEnum

HEADER = "lib/mark.h"

MARK_MASK = 0x0F00
"""The bits that policy routing looks at."""


class Mark(IntEnum):
    """``enum mark``."""

    TO_PROXY = 0x0200
    """Policy routing has the node's stack deliver it to a socket, whatever its destination is."""
    INGRESS_CLIENT = 0x0A00
    """Of an ingress proxy's sockets that face the client: listeners, and what they accepted."""
    INGRESS_SERVER = 0x0A01
    """Of those that face the server."""
    EGRESS_CLIENT = 0x0B00
    EGRESS_SERVER = 0x0B01
