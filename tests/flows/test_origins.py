"""Who is behind the ends of rows: real sockets, real programs, and rows as their packets would make them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import pytest

from cirri.flows.origins import Origins
from cirri.history.rows import ROW, Reply, Rows, RowType
from cirri.layout import PolicyDirection, address16
from cirri.model import End
from cirri.model.origins import FlowProcess, WhoIs
from cirri.sensor import origins
from cirri.sensor.kernel import Kernel, scope_of
from cirri.testing.leftovers import cgroup2

OBJECTS = Path(__file__).parents[2] / "bpf/build"
SOCKETS = """
import json, os, socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
takes = socket.create_server(("", 0)); port = takes.getsockname()[1]
one = socket.create_connection(("127.0.0.1", port))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.connect(("127.0.0.1", 9)); udp.send(b"x")
loose = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); loose.sendto(b"x", ("127.0.0.1", 9))
print(json.dumps({"takes": port, "tcp": one.getsockname()[1], "udp": udp.getsockname()[1],
                  "loose": loose.getsockname()[1], "pid": os.getpid()}), flush=True)
sys.stdin.read()
"""
HERE, SERVICE = "127.0.0.1", "10.96.0.1"


class World(NamedTuple):
    ports: dict[str, int]
    pins: Path


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    name = f"cirri-test-{uuid4().hex[:12]}"
    mount, pins = cgroup2(), Path("/sys/fs/bpf") / name
    assert mount is not None
    group = mount / name
    group.mkdir()
    kernel = Kernel(pins, OBJECTS, scope_of(group, mount))
    try:
        assert origins.attach(pins, OBJECTS, group) == {}
        enter = f'echo 0 > {group}/cgroup.procs && exec unshare -n {sys.executable} -c "$0"'
        with subprocess.Popen(
            ["/bin/sh", "-c", enter, SOCKETS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            yield World(json.loads(child.stdout.readline()), pins)
            assert child.stdin is not None
            child.stdin.close()
    finally:
        kernel.close()
        shutil.rmtree(pins, ignore_errors=True)
        while (group / "cgroup.procs").read_text().strip():
            time.sleep(0.01)
        os.rmdir(group)


class Case(NamedTuple):
    """A packet from *source* to *destination* (names of ports), and behind which ends the process is seen."""

    id: str
    source: str
    destination: str
    expected: tuple[bool, bool]
    more: Mapping[str, int] = MappingProxyType({})
    away: str = HERE
    """Address of the destination."""
    late_s: float = 0.0


ASKS, ANSWERS = {"reply": Reply.NO}, {"reply": Reply.YES}
VERDICT = {"type": RowType.POLICY_VERDICT, "direction": PolicyDirection.EGRESS, "tcp_flags": 2}
DROP = {"type": RowType.DROP, "direction": PolicyDirection.EGRESS, "tcp_flags": 2}
UDP = {"protocol": 17}
CASES = [
    Case("asks", "tcp", "takes", (True, True), ASKS),
    Case("answers", "takes", "tcp", (True, True), ANSWERS),
    Case("verdict", "tcp", "takes", (True, True), VERDICT),
    Case("denied", "tcp", "takes", (True, True), DROP),
    Case("which way is not known", "tcp", "takes", (True, False)),
    Case("translated by packets", "tcp", "none", (True, False), VERDICT, SERVICE),
    Case("translated, long ago", "tcp", "none", (False, False), VERDICT, SERVICE, 60),
    Case("from a port that was another's", "none", "tcp", (False, False), VERDICT),
    Case("nobody's port", "none", "none", (False, False), VERDICT),
    Case("before the socket was", "tcp", "takes", (False, False), ASKS, late_s=-60),
    Case("UDP", "udp", "none", (True, False), {**UDP, **ASKS}),
    Case("UDP, bound to no address", "loose", "none", (True, False), {**UDP, **ASKS}),
    Case("UDP, answered", "none", "loose", (False, True), {**UDP, **ANSWERS}),
    Case("UDP to somebody's port", "none", "udp", (False, False), {**UDP, **ASKS}),
    Case("a protocol without sockets", "tcp", "takes", (False, False), {"protocol": 132, **ASKS}),
]


def rows_of(case: Case, world: World) -> Rows:
    rows = np.zeros(1, ROW)
    told: dict[str, Any] = {
        "time": time.time_ns() + int(case.late_s * 1e9),
        "source": np.void(address16(HERE)),
        "destination": np.void(address16(case.away)),
        "source_port": world.ports.get(case.source, 1),
        "destination_port": world.ports.get(case.destination, 1),
        "source_end": 1,
        "destination_end": 1,
        "type": RowType.TRACE,
        "protocol": 6,
        **case.more,
    }
    for name, value in told.items():
        rows[name][0] = value
    return rows


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_who_is_behind(world: World, case: Case) -> None:
    found = Origins(world.pins)
    found.look()
    rows, ends = rows_of(case, world), [End(pod="a", endpoint=1)]
    known, waiting = found.point(rows, ends)
    assert (known, rows["processes"][0]) == ([], 0), "it is said before it is known"
    assert {pid for pid, _ in waiting} == ({world.ports["pid"]} if any(case.expected) else set())

    program = FlowProcess(exec_id="x", pid=world.ports["pid"], binary="/bin/x")
    found.learn(WhoIs(asked=each, process=program, since=0, until=each.time) for each in found.asked.values())
    known, waiting = found.point(rows, ends)
    assert not waiting
    pair = known[rows["processes"][0] - 1] if rows["processes"][0] else None
    seen = (False, False) if pair is None else (pair.source == program, pair.destination == program)
    assert seen == case.expected
    found.close()


def test_elsewhere_and_without_a_sensor(world: World, tmp_path: Path) -> None:
    """Ends that are no pods of this node are not looked up; without the maps nothing is."""
    rows = rows_of(CASES[0], world)
    for pins, end in ((world.pins, End(pod="a")), (tmp_path, End(pod="a", endpoint=1))):
        found = Origins(pins)
        found.look()
        assert found.point(rows, [end]) == ([], set())
        found.close()


def test_nobody_waits_for_a_sensor_that_is_silent(world: World) -> None:
    found = Origins(world.pins)
    found.look()
    found.unheard()
    assert found.point(rows_of(CASES[0], world), [End(endpoint=1)]) == ([], set())
    found.close()
