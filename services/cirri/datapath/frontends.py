"""What programs must know of a Service.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cirri.layout import LbBackend, LbServiceKey, address16
from cirri.loadbalancer import Backend, Frontend, Scope, Serving, choosable

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}


@dataclass(frozen=True, slots=True)
class Ways:
    """Where a frontend's connections go."""

    backends: tuple[LbBackend, ...] = ()
    """For new ones.  Without any they fail at once instead of leaving the node."""
    affinity_s: int = 0
    """A client keeps its backend so long after its last connection; 0: it does not."""


Frontends = Mapping[LbServiceKey, Ways]


def for_sockets(found: Mapping[Frontend, Serving]) -> dict[LbServiceKey, Ways]:
    """The frontends of *found* that sockets of this node may name."""
    return {
        _key(frontend): Ways(tuple(map(_backend, choosable(serving.backends))), serving.affinity_s)
        for frontend, serving in found.items()
        if frontend.scope is Scope.INTERNAL
    }


def keeping(found: Mapping[Frontend, Serving]) -> dict[LbServiceKey, frozenset[LbBackend]]:
    """For each frontend over UDP that sockets may name: backends that may keep what they have."""
    return {
        _key(frontend): frozenset(map(_backend, serving.backends))
        for frontend, serving in found.items()
        if frontend.scope is Scope.INTERNAL and frontend.protocol == "UDP"
    }


def _key(frontend: Frontend) -> LbServiceKey:
    return LbServiceKey(
        address=address16(frontend.address),
        port=frontend.port,
        protocol=PROTOCOLS[frontend.protocol],
        scope=frontend.scope,
    )


def _backend(backend: Backend) -> LbBackend:
    return LbBackend(address=address16(backend.address), port=backend.port)
