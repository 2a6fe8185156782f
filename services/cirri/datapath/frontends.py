"""What programs must know of a Service.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple, Self

from cirri.datapath.tables import Table
from cirri.layout import LbBackend, LbFlag, LbServiceKey, address16
from cirri.loadbalancer import Backend, Frontend, LoadBalancerConfig, Scope, Serving, choosable

Network = IPv4Network | IPv6Network
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}


class Ways(NamedTuple):
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
NONE: frozenset[LbBackend] = frozenset()


class Served(NamedTuple):
    """What a Service's frontends are on this node."""

    ways: dict[LbServiceKey, Ways]
    kept: dict[LbServiceKey, frozenset[LbBackend]]
    """For each frontend over UDP that sockets may name: backends that may keep what they have."""
    refused: list[str]
    """Why others are not served, one sentence each."""


class Choice(NamedTuple):
    """Backends that frontends have in common, as maps hold them."""

    taking: Sequence[Backend]
    entries: tuple[LbBackend, ...]
    """The same."""
    leaving: frozenset[LbBackend]
    table: Table | None
    """In which each has its share; None if all shares are equal."""

    @classmethod
    def of(cls, backends: Sequence[Backend], config: LoadBalancerConfig) -> Self:
        """Those that take new connections are in the order of their names, as a table's slots are."""
        taking: Sequence[Backend] = choosable(backends)
        if len(taking) > 1:
            taking = sorted(taking, key=lambda each: each.name)
        unequal = len(taking) > 1 and len({each.weight for each in taking}) > 1
        others = set(backends) - set(taking) if len(taking) < len(backends) else ()
        return cls(
            taking,
            tuple([_backend(each) for each in taking]),
            frozenset(map(_backend, others)) if others else NONE,
            Table.of(taking, config) if unequal else None,
        )


def serve(found: Mapping[Frontend, Serving], config: LoadBalancerConfig) -> Served:
    """What programs must know of *found*, in one go: a Service may have thousands of node ports."""
    served = Served({}, {}, [])
    drop = int(LbFlag.DROP_EMPTY) if config.no_backend == "drop" else 0
    known: dict[int, Choice] = {}
    for frontend, serving in found.items():
        inside = frontend.scope is Scope.INTERNAL
        if frontend.protocol == "SCTP" and any(each.port != frontend.port for each in serving.backends):
            if inside:
                served.refused.append(
                    f"is not served at {frontend.address} SCTP port {frontend.port}: its backends listen at "
                    "another port, and SCTP's checksum, which covers ports, cannot be put right"
                )
            continue
        if (choice := known.get(id(serving.backends))) is None:
            choice = known[id(serving.backends)] = Choice.of(serving.backends, config)
        key = _key(frontend)
        if not inside:
            served.ways[key] = _way_in(serving, choice, config)
            continue
        served.ways[key] = Ways(
            choice.entries, serving.affinity_s, choice.leaving, flags=drop, table=choice.table
        )
        if frontend.protocol == "UDP":
            served.kept[key] = choice.leaving.union(choice.entries)
    served.refused.sort()
    return served


def _way_in(serving: Serving, choice: Choice, config: LoadBalancerConfig) -> Ways:
    flags = LbFlag.DROP_EMPTY if config.no_backend == "drop" or serving.elsewhere else LbFlag(0)
    if serving.guarded:
        flags |= LbFlag.RANGES_DENY if serving.ranges_deny else LbFlag.RANGES_ALLOW
    if serving.dsr and config.direct:
        flags |= LbFlag.DSR
        flags |= LbFlag.DSR_IPIP if config.dispatch == "ipip" else LbFlag(0)
    table = choice.table
    if serving.algorithm == "maglev" and choice.taking:
        flags |= LbFlag.MAGLEV
        table = table or Table.of(choice.taking, config)
    return Ways(
        choice.entries,
        serving.affinity_s,
        choice.leaving,
        frozenset(serving.ranges),
        int(flags),
        table,
    )


def _key(frontend: Frontend) -> LbServiceKey:
    return LbServiceKey(
        address=address16(frontend.address),
        port=frontend.port,
        protocol=PROTOCOLS[frontend.protocol],
        scope=frontend.scope,
    )


def _backend(backend: Backend) -> LbBackend:
    return LbBackend(address=address16(backend.address), port=backend.port)
