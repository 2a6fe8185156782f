"""What the socket programs must know of a Service.  Pure."""

from __future__ import annotations

from collections.abc import Mapping

from cirri.layout import LbBackend, LbServiceKey, address16
from cirri.loadbalancer import Frontend, Scope, Serving, choosable

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}

Backends = tuple[LbBackend, ...]
Frontends = Mapping[LbServiceKey, Backends]


def for_sockets(found: Mapping[Frontend, Serving]) -> dict[LbServiceKey, Backends]:
    """The frontends of *found* that sockets of this node may name, with the backends for new connections.

    Without any the tuple is empty: connections fail at once instead of leaving the node.
    """
    return {
        LbServiceKey(
            address=address16(frontend.address), port=frontend.port, protocol=PROTOCOLS[frontend.protocol]
        ): tuple(
            LbBackend(address=address16(each.address), port=each.port) for each in choosable(serving.backends)
        )
        for frontend, serving in found.items()
        if frontend.scope is Scope.INTERNAL
    }
