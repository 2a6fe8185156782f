"""The real maps of Services: changed without a mixture, adopted after a restart, nothing left behind."""

from collections import Counter
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from itertools import permutations
from pathlib import Path

import pytest
from msgspec.structs import replace

from cirri.datapath.frontends import Ways
from cirri.datapath.services import Services
from cirri.datapath.tables import Table
from cirri.layout import (
    LbBackend,
    LbFlag,
    LbFrontend,
    LbScope,
    LbServiceKey,
    LbState,
    address16,
    maglev_keys,
    network_of,
)
from cirri.loadbalancer import Backend, LoadBalancerConfig

from .test_kernel import pinned

FRONT, OTHER = (
    LbServiceKey(address=address16(address), port=80, protocol=6) for address in ("10.96.0.1", "10.96.0.2")
)


OUTSIDE = LbServiceKey(address=address16("192.0.2.80"), port=80, protocol=6, scope=LbScope.EXTERNAL)


def ways(*addresses: str, affinity_s: int = 0) -> Ways:
    return Ways(tuple(map(backend, addresses)), affinity_s)


def backend(address: str) -> LbBackend:
    return LbBackend(address=address16(address), port=8080)


def open_services(bpffs: Path) -> Services:
    return Services(bpffs, lambda: None)


RANGED = Ways(
    (backend("10.0.0.1"),),
    leaving=frozenset((backend("10.0.0.2"),)),
    ranges=frozenset((ip_network("192.0.2.0/24"), ip_network("198.51.100.0/25"))),
    flags=LbFlag.RANGES_DENY,
)


def shared(*addresses: str, size: int = 251) -> Ways:
    """With a table in which the second and later backends have more."""
    weighed = [Backend(address, 8080, weight=n) for n, address in enumerate(addresses, 1)]
    table = Table.of(weighed, LoadBalancerConfig(table_size=size))
    return Ways(tuple(map(backend, addresses)), table=table, flags=LbFlag.MAGLEV)


STATES: list[dict[LbServiceKey, Ways | None]] = [
    {FRONT: ways("10.0.0.1", "10.0.0.2"), OTHER: ways()},
    {FRONT: ways("10.0.0.2", "10.0.0.3", affinity_s=30), OUTSIDE: RANGED},
    {FRONT: ways(affinity_s=30), OTHER: ways("10.0.0.3", affinity_s=60)},
    {FRONT: shared("10.0.0.1", "10.0.0.2"), OUTSIDE: shared("10.0.0.1", "10.0.0.2")},
    {
        FRONT: None,
        OUTSIDE: Ways((backend("10.0.0.2"),), ranges=frozenset((ip_network("192.0.2.0/24"),)), flags=1),
    },
]


def found(services: Services) -> dict[LbServiceKey, Ways]:
    """What programs meet, and nothing besides."""
    heads, slots = services.services.to_dict(), services.backends.to_dict()
    assert sum(head.count for head in heads.values()) == len(slots)
    states, sources = services.alive.to_dict(), services.ranges.to_dict()
    met = {}
    for key, head in heads.items():
        mine = sorted((k.slot, b) for k, b in slots.items() if k.service == head.id)
        told = {LbBackend(address=k.address, port=k.port): s for k, s in states.items()
                if k.frontend == head.frontend}  # fmt: skip
        backends = tuple(b for _, b in mine)
        if told:
            assert {b for b, state in told.items() if state == LbState.TAKING} == set(backends)
        met[key] = Ways(
            backends,
            head.affinity_s,
            frozenset(b for b, state in told.items() if state == LbState.KEEPING),
            frozenset(
                network_of(k.prefix_len - 32, k.address) for k in sources if k.frontend == head.frontend
            ),
            head.flags,
            Table(head.table, head.table_size, head.seed) if head.table_size else None,
        )
        if head.affinity_s or key.scope == LbScope.EXTERNAL:
            assert len(told) == len(backends) + len(met[key].leaving)
    numbers = {head.frontend for head in heads.values()}
    assert {k.frontend for k in states} | {k.frontend for k in sources} <= numbers
    assert services.frontends.to_dict() == {
        heads[key].frontend: LbFrontend(address=key.address, port=key.port)
        for key in heads
        if key.scope == LbScope.EXTERNAL
    }
    tables = {ways.table for ways in met.values() if ways.table}
    assert set(services.tables.parts.keys()) == {k for t in tables for k in maglev_keys(t.name, t.size)}
    return met


@pytest.mark.parametrize("again", [lambda path, old: old, lambda path, old: open_services(path)],
                         ids=["same process", "restarted each time"])  # fmt: skip
def test_every_state_follows_every_other(again: Callable[[Path, Services], Services]) -> None:
    with pinned() as bpffs:
        services = open_services(bpffs)
        expected: dict[LbServiceKey, Ways] = {}
        numbers: dict[LbServiceKey, int] = {}
        for path in permutations(STATES, 3):
            for wanted in path:
                services = again(bpffs, services)
                assert services.copy == expected, "what is in force is known"
                services.apply(wanted)
                _follow(expected, wanted)
                assert found(services) == services.copy == expected
                now = {key: head.frontend for key, head in services.services.items()}
                assert all(number == numbers.get(key, number) for key, number in now.items())
                assert len(set(now.values())) == len(now)
                numbers = now


def _follow(state: dict[LbServiceKey, Ways], wanted: Mapping[LbServiceKey, Ways | None]) -> None:
    for key, one in wanted.items():
        state.pop(key, None)
        if one is not None:
            state[key] = one


def test_what_was_cut_short_is_cleared_away_and_written_anew() -> None:
    with pinned() as bpffs:
        services = open_services(bpffs)
        services.apply({FRONT: ways("10.0.0.1", affinity_s=30), OTHER: ways("10.0.0.1", "10.0.0.2")})
        (lost,) = services.alive.keys()
        services.alive.delete(lost)
        services.backends.delete(next(k for k in services.backends.keys() if k.slot == 1))  # noqa: SIM118
        services.apply({OUTSIDE: shared("10.0.0.1", "10.0.0.2")})
        services.tables.parts.delete(next(iter(services.tables.parts.keys())))
        again = open_services(bpffs)
        assert again.copy == {}, "none is whole"
        wanted = {FRONT: ways("10.0.0.1", affinity_s=30), OUTSIDE: shared("10.0.0.1", "10.0.0.2")}
        again.apply({**wanted, OTHER: None})
        assert found(again) == wanted


def test_a_full_map_is_a_fault_until_there_is_room() -> None:
    with pinned(lb_backends=4) as bpffs:
        services = open_services(bpffs)
        services.apply({FRONT: ways("10.0.0.1", "10.0.0.2")})
        services.apply({OTHER: ways(*(f"10.0.1.{n}" for n in range(6)))})
        assert "cirri_lb_backends is full" in services.fault
        assert services.copy == {FRONT: ways("10.0.0.1", "10.0.0.2")}
        again = open_services(bpffs)
        again.apply({OTHER: ways("10.0.1.1")})
        assert (again.fault, set(found(again))) == ("", {FRONT, OTHER})


@pytest.mark.parametrize("full", ["lb_backends", "lb_services", "lb_alive", "lb_frontends"])
def test_of_many_at_once_those_that_fit_are_served_and_nothing_of_the_others_is_left(full: str) -> None:
    fronts = [replace(OUTSIDE, port=port) for port in range(1, 21)]
    wanted = {key: ways("10.0.0.2") for key in fronts}
    with pinned(**{full: 8}) as bpffs:
        services = open_services(bpffs)
        services.apply({fronts[0]: ways("10.0.0.1")})
        services.apply(wanted)
        assert f"cirri_{full} is full" in services.fault
        assert found(services) == services.copy
        # Where a change needs both the old and the new, there is room for one less.
        assert list(services.copy) == fronts[: 7 if full in ("lb_backends", "lb_alive") else 8]
        services.apply(dict.fromkeys(fronts[1:]))
        services.apply({fronts[-1]: ways("10.0.0.3")})
        assert services.fault == ""
        assert found(services) == services.copy


def test_tables_are_made_once_and_one_that_does_not_fit_leaves_nothing() -> None:
    """Slots are in proportion, and name the backends of the entry that leads to them."""
    many = shared("10.0.0.1", "10.0.0.2", size=16381)
    with pinned(lb_maglev=3) as bpffs:
        services = open_services(bpffs)
        services.apply({OUTSIDE: shared("10.0.0.1", "10.0.0.2"), FRONT: shared("10.0.0.1", "10.0.0.2")})
        (table,) = {head.table for head in services.services.to_dict().values()}
        raw = b"".join(services.tables.parts[key].slots for key in maglev_keys(table, 251))
        slots = Counter(memoryview(raw).cast("H")[:251])
        assert slots in ({0: 84, 1: 167}, {0: 83, 1: 168})
        services.apply({OTHER: many})
        assert "cirri_lb_maglev is full" in services.fault
        assert found(services)[OTHER] == many._replace(table=None), "it is served without"
        services.apply({FRONT: ways("10.0.0.1"), OUTSIDE: None})
        assert "cirri_lb_maglev is full" in services.fault, "still"
        services.apply({OTHER: shared("10.0.0.1", "10.0.0.2")})
        assert services.fault == ""
        assert found(services) == {FRONT: ways("10.0.0.1"), OTHER: shared("10.0.0.1", "10.0.0.2")}


def test_flows_look_again_only_when_a_backend_takes_less() -> None:
    asked: list[None] = []
    with pinned() as bpffs:
        services = Services(bpffs, lambda: asked.append(None))
        one, two = backend("10.0.0.1"), backend("10.0.0.2")
        for ways_out, expected in (
            (Ways((one,)), 0),
            (Ways((one, two)), 0),
            (Ways((one,), leaving=frozenset((two,))), 1),
            (Ways((one,)), 2),
            (Ways((one, two)), 2),
            (None, 3),
        ):
            services.apply({OUTSIDE: ways_out})
            assert len(asked) == expected, ways_out


def test_what_packets_of_pods_need_is_there_while_they_are_looked_at() -> None:
    """Frontends of the inside get their backends' states and their names; the outside's keep theirs."""
    with pinned() as bpffs:
        services = open_services(bpffs)
        services.apply(STATES[0] | {OUTSIDE: RANGED})
        outside_alone = services.alive.to_dict(), services.frontends.to_dict()
        services.meet_pods_packets(True)
        assert {each.address for each in services.frontends.to_dict().values()} == {
            key.address for key in (FRONT, OTHER, OUTSIDE)
        }
        assert len(services.alive.to_dict()) == len(outside_alone[0]) + 2
        services.apply({FRONT: ways("10.0.0.2")})
        assert len(services.alive.to_dict()) == len(outside_alone[0]) + 1
        services.meet_pods_packets(False)
        assert (services.alive.to_dict(), services.frontends.to_dict()) == outside_alone
