"""What programs must know of a Service.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from cirri.layout import LbBackend, LbFlag, LbServiceKey, address16
from cirri.loadbalancer import Backend, Frontend, Here, NoBackend, Scope, Serving, choosable

Network = IPv4Network | IPv6Network
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}


@dataclass(frozen=True, slots=True)
class Ways:
    """Where a frontend's connections go."""

    backends: tuple[LbBackend, ...] = ()
    """For new ones.  Without any they fail at once instead of leaving the node."""
    affinity_s: int = 0
    """A client keeps its backend so long after its last connection; 0: it does not."""
    leaving: frozenset[LbBackend] = frozenset()
    """Backends that keep the connections that came from the wire, and take no new ones."""
    ranges: frozenset[Network] = frozenset()
    """Sources that *flags* speak of."""
    flags: int = 0
    """:class:`LbFlag`."""


Frontends = Mapping[LbServiceKey, Ways]


def for_sockets(found: Mapping[Frontend, Serving]) -> dict[LbServiceKey, Ways]:
    """The frontends of *found* that sockets of this node may name."""
    return {
        _key(frontend): Ways(tuple(map(_backend, choosable(serving.backends))), serving.affinity_s)
        for frontend, serving in found.items()
        if frontend.scope is Scope.INTERNAL
    }


def for_wire(
    found: Mapping[Frontend, Serving], here: Here, no_backend: NoBackend
) -> dict[LbServiceKey, Ways]:
    """The frontends of *found* that are served to clients outside: with a pod of *here*, or with nobody.

    What only other nodes could serve is not among them, nor SCTP, whose checksum programs cannot put right.
    """
    served = {}
    for frontend, serving in found.items():
        if frontend.scope is not Scope.EXTERNAL or frontend.protocol == "SCTP":
            continue
        mine = tuple(
            each for each in serving.backends if each.node == here.node and each.address not in here.addresses
        )
        if mine or not serving.backends:
            served[_key(frontend)] = _way_in(serving, mine, no_backend)
    return served


def _way_in(serving: Serving, mine: tuple[Backend, ...], no_backend: NoBackend) -> Ways:
    taking = choosable(mine)
    flags = LbFlag.DROP_EMPTY if no_backend == "drop" or serving.elsewhere else LbFlag(0)
    if serving.guarded:
        flags |= LbFlag.RANGES_DENY if serving.ranges_deny else LbFlag.RANGES_ALLOW
    return Ways(
        tuple(map(_backend, taking)),
        serving.affinity_s,
        frozenset(map(_backend, set(mine) - set(taking))),
        frozenset(serving.ranges),
        flags,
    )


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
