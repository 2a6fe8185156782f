"""The real maps: adopted after a restart, changed without a mixture, closed when they are full."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from uuid import uuid4

import pytest

from cirri.datapath.kernel import Kernel
from cirri.datapath.policies import ALL, Packed
from cirri.engine.entries import EGRESS, INGRESS, Entries, EntryKey, EntryValue
from cirri.layout import (
    EndpointFlag,
    EndpointValue,
    PolicyKey,
    address16,
)
from cirri.maps import Objects

OBJECTS = Path(__file__).resolve().parents[2] / "bpf" / "build"
WEB, TIE, X = 700, 701, 702
INSIDE = EndpointFlag.ENFORCE_INGRESS


@contextmanager
def pinned(**sizes: int) -> Iterator[Path]:
    """Fresh maps; *sizes* by name without ``cirri_``."""
    bpffs = Path("/sys/fs/bpf") / f"cirri-test-{uuid4().hex[:8]}"
    small = {"cirri_ct": 64, "cirri_fragments": 64, "cirri_lb_reverse": 64, "cirri_lb_affinity": 64}
    try:
        Objects.load(OBJECTS, bpffs, max_entries=small | {f"cirri_{k}": v for k, v in sizes.items()}).close()
        yield bpffs
    finally:
        shutil.rmtree(bpffs, ignore_errors=True)


def allow(*peers: int, direction: int = INGRESS) -> Entries:
    return {EntryKey(peer, direction, 6, 80, 16): EntryValue(9) for peer in peers}


def deny(*peers: int) -> Entries:
    return {EntryKey(peer, INGRESS): EntryValue(8, deny=True) for peer in peers}


def pod(kernel: Kernel, address: str, identity: int, number: int = 1) -> None:
    value = EndpointValue(ifindex=5, id=number)
    kernel.policies.put_endpoint(address16(address), kernel.policies.under(identity, value))


def in_force(kernel: Kernel, address: str) -> tuple[int, Entries]:
    """(flags, entries) that programs meet for a pod, read from the maps themselves."""
    value = kernel.policies.endpoint_map[address16(address)]
    entries = {
        EntryKey(k.identity, k.direction, k.protocol, k.port, k.port_bits): EntryValue(v.rule, v.action == 1)
        for k, v in kernel.policies.map.items()
        if k.policy_id == value.policy_id
    }
    return value.flags, entries


STATES: list[tuple[EndpointFlag, Entries]] = [
    (EndpointFlag(0), {}),
    (INSIDE, {}),
    (INSIDE, allow(TIE)),
    (INSIDE, allow(TIE, X) | deny(TIE)),
    (ALL, deny(X) | allow(0) | allow(0, direction=EGRESS)),
]


def test_every_state_is_reached_from_every_other_and_leaves_nothing_behind() -> None:
    with pinned() as bpffs:
        kernel = Kernel(bpffs)
        kernel.policies.realize(WEB, *STATES[0])
        pod(kernel, "10.0.0.1", WEB)
        pod(kernel, "fd00::1", WEB)
        for path in permutations(STATES, 3):
            for flags, entries in path:
                kernel.policies.realize(WEB, flags, entries)
                for address in ("10.0.0.1", "fd00::1"):
                    assert in_force(kernel, address) == (flags, entries)
                kernel.policies.bury(kernel.policies.dying)
                assert kernel.policies.map.count() == len(entries)
        assert not kernel.policies.realize(WEB, *path[-1]), "the same again is no change"
        for address in ("10.0.0.1", "fd00::1"):
            kernel.policies.drop_endpoint(address16(address))
        kernel.policies.release(WEB)
        assert kernel.policies.map.count() == kernel.policies.endpoint_map.count() == 0


def test_a_patch_touches_only_the_peers_it_speaks_of() -> None:
    with pinned() as bpffs:
        kernel = Kernel(bpffs)
        kernel.policies.realize(WEB, INSIDE, allow(TIE, X))
        pod(kernel, "10.0.0.1", WEB)
        assert kernel.policies.patch(WEB, {X, 703}, [allow(703)])
        assert in_force(kernel, "10.0.0.1") == (INSIDE, allow(TIE, 703))
        assert not kernel.policies.patch(WEB, {703}, [allow(703)])


def test_a_restart_finds_what_is_in_force() -> None:
    with pinned() as bpffs:
        first = Kernel(bpffs)
        first.policies.realize(WEB, INSIDE, allow(TIE))
        pod(first, "10.0.0.1", WEB)
        epoch = first.runtime.value.epoch
        first.runtime.next_epoch()

        again = Kernel(bpffs)
        assert again.runtime.value.epoch == epoch + 2, "what programs remember is doubted"
        assert not again.policies.realize(WEB, INSIDE, allow(TIE)), "nothing is written anew"
        assert in_force(again, "10.0.0.1") == (INSIDE, allow(TIE))


@pytest.mark.parametrize("led", [0, 1], ids=["before the first endpoint", "between two endpoints"])
def test_a_switch_that_was_cut_short_is_finished_or_undone(led: int) -> None:
    with pinned() as bpffs:
        kernel = Kernel(bpffs)
        policies = kernel.policies
        policies.realize(WEB, INSIDE, allow(TIE))
        pod(kernel, "10.0.0.1", WEB)
        pod(kernel, "10.0.0.2", WEB, 2)
        # as _switch does, up to where the process is killed
        policies._store(Packed(allow(X)), 99)
        for address in ["10.0.0.1"][:led]:
            old = policies.endpoints[address16(address)]
            policies.put_endpoint(
                address16(address),
                EndpointValue(ifindex=5, id=old.id, identity=WEB, policy_id=99, flags=INSIDE),
            )

        again = Kernel(bpffs)
        expected = (INSIDE, allow(X) if led else allow(TIE))
        assert [in_force(again, a) for a in ("10.0.0.1", "10.0.0.2")] == [expected, expected]
        assert again.policies.map.count() == 1


def fill(kernel: Kernel, count: int) -> list[PolicyKey]:
    """Entries of somebody else."""
    keys = [PolicyKey.of(7777, n, INGRESS) for n in range(1, count + 1)]
    from cirri.layout import PolicyValue

    kernel.policies.map.put_many((key, PolicyValue()) for key in keys)
    return keys


@pytest.mark.parametrize("start", STATES[:3], ids=["open", "closed", "some"])
def test_a_full_map_closes_the_endpoint_alone_and_opens_when_there_is_room(
    start: tuple[EndpointFlag, Entries],
) -> None:
    wanted = deny(*range(800, 806)) | allow(*range(900, 908))
    with pinned(policy=16) as bpffs:
        kernel = Kernel(bpffs)
        kernel.policies.realize(TIE, INSIDE, allow(X))
        pod(kernel, "10.0.0.9", TIE, 9)
        kernel.policies.realize(WEB, *start)
        pod(kernel, "10.0.0.1", WEB)
        others = fill(kernel, 5)

        kernel.policies.realize(WEB, EndpointFlag(0), wanted)
        flags, entries = in_force(kernel, "10.0.0.1")
        assert set(entries) < set(wanted)
        assert set(deny(*range(800, 806))) <= set(entries), "denies first"
        assert flags == EndpointFlag(0), "every deny is there, so what is not denied may pass"
        (fault,) = kernel.faults()
        assert fault.startswith(f"policy of identity {WEB} is not all in force: map cirri_policy is full")
        assert in_force(kernel, "10.0.0.9") == (INSIDE, allow(X)), "others are untouched"

        kernel.policies.map.delete_many(others)
        kernel.policies.realize(WEB, EndpointFlag(0), wanted)
        assert (kernel.faults(), in_force(kernel, "10.0.0.1")) == ([], (EndpointFlag(0), wanted))


def test_denies_that_do_not_fit_close_everything() -> None:
    with pinned(policy=8) as bpffs:
        kernel = Kernel(bpffs)
        kernel.policies.realize(WEB, EndpointFlag(0), {})
        pod(kernel, "10.0.0.1", WEB)
        kernel.policies.realize(WEB, EndpointFlag(0), deny(*range(800, 812)))
        assert in_force(kernel, "10.0.0.1")[0] == ALL
        assert len(kernel.faults()) == 1
