"""What the programs promise as a whole: every drop reason, the verifier's budget, times that can be set."""

import importlib.util
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from cirri.layout import CT, ENDPOINTS, DropReason, EndpointValue, MapType, address16
from cirri.maps import SkBuff, open_pinned, program_info, test_run
from cirri.maps.load import _Object
from cirri.testing.datapath import TC_REDIRECT, TC_SHOT, A, World, mac, world
from cirri.testing.packets import FROM_POD, V4, Case, Send, frame, send

HERE = Path(__file__).parent
INSTRUCTIONS = 500_000
"""Half of what the verifier walks before it gives up: room for kernels that prune less."""
ELSEWHERE = {
    DropReason.CT_CREATE_FAILED: "test_connection_that_cannot_be_stored",
    DropReason.PROXY_ASSIGN: "test_a_socket_listens",
    DropReason.NO_TUNNEL_KEY: "test_what_came_by_no_tunnel_is_dropped",
}
"""Reasons that a row of packets cannot give, and the tests that meet them."""


def cases() -> Iterator[Case]:
    """Every row of this folder's tables."""
    for path in sorted(HERE.glob("test_*.py")):
        if path != Path(__file__) and "\nCASES" in path.read_text():
            spec = importlib.util.spec_from_file_location(f"rows_{path.stem}", path)
            assert spec
            assert spec.loader
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            yield from module.CASES


def test_every_drop_reason_can_be_met() -> None:
    """A reason that no row gives is a promise nobody keeps: remove it from lib/drop.h, or add the row."""
    given = {step.to for case in cases() for step in case.steps if isinstance(step, Send)}
    missing = [reason.name for reason in DropReason if reason not in given and reason not in ELSEWHERE]
    assert missing == []
    tests = "".join(path.read_text() for path in HERE.glob("test_*.py"))
    assert all(f"def {name}(" in tests for name in ELSEWHERE.values())


def test_rows_have_names_of_their_own() -> None:
    names = [case.id for case in cases()]
    assert len(names) == len(set(names))
    assert len(names) >= 250


def test_verifier_budget(shared_world: World) -> None:
    walked = {name: program_info(p.fd).verified_insns for name, p in shared_world.programs.items()}
    assert len(walked) == 8
    assert {name: n for name, n in walked.items() if not 0 < n < INSTRUCTIONS} == {}


def test_connection_that_cannot_be_stored(built: Path) -> None:
    """An LRU map always finds room; a plain one of a single entry, in its place, does not."""
    bpffs = Path(f"/sys/fs/bpf/cirri-test-{uuid4().hex[:12]}")
    bpffs.mkdir()
    opened = _Object(built / "bpf_pod.o", bpffs)
    try:
        opened.lib.bpf_map__set_type(opened.maps[CT.name], MapType.HASH.value)
        opened.lib.bpf_map__set_max_entries(opened.maps[CT.name], 1)
        programs = {p.section: p for p in opened.load(Path("/tmp"))}
        with open_pinned(bpffs, ENDPOINTS) as endpoints:
            endpoints.put(
                address16(A.address4),
                EndpointValue(ifindex=1, identity=1001, mac=mac(A.mac), node_mac=mac(A.node_mac)),
            )
        first, second = V4.tcp(V4.a, V4.world, "S", 1, 80), V4.tcp(V4.a, V4.world, "S", 2, 80)
        run = programs[FROM_POD]
        assert test_run(run, frame("A", first), context=SkBuff(ifindex=1)).action != TC_SHOT
        assert test_run(run, frame("A", second), context=SkBuff(ifindex=1)).action == TC_SHOT
        assert test_run(run, frame("A", first), context=SkBuff(ifindex=1)).action != TC_SHOT
        reasons = reasons_counted(bpffs)
        assert reasons == {(0, 2): 2, (int(DropReason.CT_CREATE_FAILED), 2): 1}
        for program in programs.values():
            os.close(program.fd)
    finally:
        opened.close()
        shutil.rmtree(bpffs, ignore_errors=True)


def reasons_counted(bpffs: Path) -> dict[tuple[int, int], int]:
    """(reason, direction) -> packets."""
    from cirri.layout import METRICS, MetricsValue, metrics_of
    from cirri.maps import open_per_cpu

    with open_per_cpu(bpffs, METRICS) as metrics:
        sums = {metrics_of(index): MetricsValue.sum(values).packets for index, values in metrics.items()}
    return {key: packets for key, packets in sums.items() if packets}


@pytest.mark.parametrize("timeout", [1, 30])
def test_time_outs_are_settings(built: Path, timeout: int) -> None:
    with world({"ct_timeout_any_s": timeout}) as made:
        assert send(made, "A", V4.udp(V4.a, V4.b)).action == TC_REDIRECT
        ((_, value),) = made.ct.items()
        left = value.expires - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        assert (timeout - 1) * 10**9 < left <= timeout * 10**9
