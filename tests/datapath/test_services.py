"""The real maps of Services: changed without a mixture, adopted after a restart, nothing left behind."""

from collections.abc import Callable, Mapping
from itertools import permutations
from pathlib import Path

import pytest

from cirri.datapath.frontends import Ways
from cirri.datapath.services import Services
from cirri.layout import LbBackend, LbServiceKey, address16

from .test_kernel import pinned

FRONT, OTHER = (
    LbServiceKey(address=address16(address), port=80, protocol=6) for address in ("10.96.0.1", "10.96.0.2")
)


def ways(*addresses: str, affinity_s: int = 0) -> Ways:
    return Ways(tuple(LbBackend(address=address16(a), port=8080) for a in addresses), affinity_s)


STATES: list[dict[LbServiceKey, Ways | None]] = [
    {FRONT: ways("10.0.0.1", "10.0.0.2"), OTHER: ways()},
    {FRONT: ways("10.0.0.2", "10.0.0.3", affinity_s=30)},
    {FRONT: ways(affinity_s=30), OTHER: ways("10.0.0.3", affinity_s=60)},
    {FRONT: None},
]


def found(services: Services) -> dict[LbServiceKey, Ways]:
    """What programs meet, and nothing besides."""
    heads, slots = services.services.to_dict(), services.backends.to_dict()
    assert sum(head.count for head in heads.values()) == len(slots)
    alive = {(k.frontend, k.address, k.port) for k in services.alive.to_dict()}
    met = {}
    for key, head in heads.items():
        mine = sorted((k.slot, b) for k, b in slots.items() if k.service == head.id)
        met[key] = Ways(tuple(b for _, b in mine), head.affinity_s)
    assert alive == {
        (heads[key].frontend, b.address, b.port)
        for key, one in met.items()
        if one.affinity_s
        for b in one.backends
    }
    return met


@pytest.mark.parametrize("again", [lambda path, old: old, lambda path, old: Services(path)],
                         ids=["same process", "restarted each time"])  # fmt: skip
def test_every_state_follows_every_other(again: Callable[[Path, Services], Services]) -> None:
    with pinned() as bpffs:
        services = Services(bpffs)
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
        services = Services(bpffs)
        services.apply({FRONT: ways("10.0.0.1", affinity_s=30), OTHER: ways("10.0.0.1", "10.0.0.2")})
        (lost,) = services.alive.keys()
        services.alive.delete(lost)
        services.backends.delete(next(k for k in services.backends.keys() if k.slot == 1))  # noqa: SIM118
        again = Services(bpffs)
        assert again.copy == {}, "neither is whole"
        again.apply({FRONT: ways("10.0.0.1", affinity_s=30), OTHER: None})
        assert found(again) == {FRONT: ways("10.0.0.1", affinity_s=30)}


def test_a_full_map_is_a_fault_until_there_is_room() -> None:
    with pinned(lb_backends=4) as bpffs:
        services = Services(bpffs)
        services.apply({FRONT: ways("10.0.0.1", "10.0.0.2")})
        services.apply({OTHER: ways(*(f"10.0.1.{n}" for n in range(6)))})
        assert "cirri_lb_backends is full" in services.fault
        assert services.copy == {FRONT: ways("10.0.0.1", "10.0.0.2")}
        again = Services(bpffs)
        again.apply({OTHER: ways("10.0.1.1")})
        assert (again.fault, set(found(again))) == ("", {FRONT, OTHER})
