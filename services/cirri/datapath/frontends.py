"""What programs must know of a Service.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from cirri.datapath.tables import Table
from cirri.layout import LbBackend, LbFlag, LbServiceKey, address16
from cirri.loadbalancer import Backend, Frontend, LoadBalancerConfig, Scope, Serving, choosable

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
    table: Table | None = None
    """In which *backends* are chosen; None: each is as likely as the others."""


Frontends = Mapping[LbServiceKey, Ways]


def for_inside(found: Mapping[Frontend, Serving], config: LoadBalancerConfig) -> dict[LbServiceKey, Ways]:
    """The frontends of *found* that sockets and packets of this node may name."""
    served = {}
    for frontend, serving in found.items():
        if frontend.scope is Scope.INTERNAL and not _changes_sctp(frontend, serving):
            taking = _sorted(serving.backends)
            served[_key(frontend)] = Ways(
                tuple(map(_backend, taking)),
                serving.affinity_s,
                frozenset(map(_backend, set(serving.backends) - set(taking))),
                flags=LbFlag.DROP_EMPTY if config.no_backend == "drop" else LbFlag(0),
                table=_shares(taking, config),
            )
    return served


def refused(found: Mapping[Frontend, Serving]) -> list[str]:
    """Why frontends of *found* are not served, one sentence each."""
    return sorted(
        f"is not served at {frontend.address} SCTP port {frontend.port}: its backends listen at another "
        "port, and SCTP's checksum, which covers ports, cannot be put right"
        for frontend, serving in found.items()
        if frontend.scope is Scope.INTERNAL and _changes_sctp(frontend, serving)
    )


def _changes_sctp(frontend: Frontend, serving: Serving) -> bool:
    return frontend.protocol == "SCTP" and any(each.port != frontend.port for each in serving.backends)


def for_wire(found: Mapping[Frontend, Serving], config: LoadBalancerConfig) -> dict[LbServiceKey, Ways]:
    """The frontends of *found* that are served to clients outside."""
    return {
        _key(frontend): _way_in(serving, config)
        for frontend, serving in found.items()
        if frontend.scope is Scope.EXTERNAL and not _changes_sctp(frontend, serving)
    }


def _way_in(serving: Serving, config: LoadBalancerConfig) -> Ways:
    taking = _sorted(serving.backends)
    flags = LbFlag.DROP_EMPTY if config.no_backend == "drop" or serving.elsewhere else LbFlag(0)
    if serving.guarded:
        flags |= LbFlag.RANGES_DENY if serving.ranges_deny else LbFlag.RANGES_ALLOW
    if serving.dsr and config.direct:
        flags |= LbFlag.DSR
        flags |= LbFlag.DSR_IPIP if config.dispatch == "ipip" else LbFlag(0)
    table = _shares(taking, config)
    if serving.algorithm == "maglev" and taking:
        flags |= LbFlag.MAGLEV
        table = table or Table.of(taking, config)
    return Ways(
        tuple(map(_backend, taking)),
        serving.affinity_s,
        frozenset(map(_backend, set(serving.backends) - set(taking))),
        frozenset(serving.ranges),
        flags,
        table,
    )


def _sorted(backends: Sequence[Backend]) -> list[Backend]:
    """Those that take new connections, in the order of their names, which is that of a table's slots."""
    return sorted(choosable(backends), key=lambda each: each.name)


def _shares(taking: Sequence[Backend], config: LoadBalancerConfig) -> Table | None:
    """The table in which each has its share; None if all shares are equal."""
    unequal = len({each.weight for each in taking}) > 1
    return Table.of(taking, config) if unequal else None


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
