"""What makes sensors wrong: numbers used again, clocks that are set, containers in containers, fork bombs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.sensor.world import World, world

from cirri.model import Resource
from cirri.sensor.cgroups import Cgroups
from cirri.sensor.facts import TICK_NS, exec_time
from cirri.sensor.pods import Pods
from cirri.testing.leftovers import cgroup2

HOUR_NS = 3600 * 10**9


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    with world() as one:
        yield one


# clone3(2) with set_tid asks for a number; somebody else may have it for a while.  Not within the tick in
# which its last owner began: numbers are as good as never used again so soon.
AGAIN = """
import ctypes, errno, os, struct, time
libc = ctypes.CDLL(None, use_errno=True)
ticks = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 10_000_000
if not (number := os.fork()):
    os.execv("/bin/true", ["true", "first"])
before = ticks()
os.waitpid(number, 0)
while ticks() <= before: pass
wanted = (ctypes.c_int * 1)(number)
for _ in range(10000):
    said = struct.pack("11Q", 0, 0, 0, 0, 17, 0, 0, 0, ctypes.addressof(wanted), 1, 0)
    child = libc.syscall(435, said, len(said))
    if child == 0:
        os.execv("/bin/false", ["false", "second"])
    if child > 0 or ctypes.get_errno() != errno.EEXIST: break
    time.sleep(0.001)
os.write(1, str(number if child == number else -ctypes.get_errno()).encode())
os.waitpid(number, 0)
"""


def test_a_number_that_is_used_again(here: World) -> None:
    process = here.start(sys.executable, "-S", "-c", AGAIN, stdout=-1)
    output, _ = process.communicate(timeout=60)
    number = int(output)
    here.until(lambda: sum(e[0] == "exit" and e[1].pid == number for e in here.events) == 2)
    found = [e for e in here.events if e[1].pid == number]

    assert [(e[0], e[1].arguments, e[3]) for e in found] == [
        ("exec", "first", 0), ("exit", "first", 0), ("exec", "second", 0), ("exit", "second", 1)
    ]  # fmt: skip
    names = [e[1].exec_id for e in found]
    assert names[0] == names[1] != names[2] == names[3]
    assert {e[1].parent_exec_id for e in found} == {
        next(e[1].exec_id for e in here.events if e[1].pid == process.pid)
    }
    # What is told late of the first is not taken for the second's.
    starts = [ticks * TICK_NS for pid, ticks in here.processes._ended if pid == number]
    late = [here.processes.at(number, start, 0, 0).exec_id for start in starts]
    assert late == [names[0], names[2]]


def test_a_clock_that_is_set(here: World) -> None:
    process = here.start("/bin/sleep", "1000")
    here.until(lambda: any(e[1].pid == process.pid for e in here.events))
    here.wall_ns = HOUR_NS  # while it runs
    try:
        process.kill()
        process.wait()
        (_, began, _, _), (_, ended, _, _) = here.of(process.pid)
        later = here.of(here.run("/bin/true"))[0][1]
    finally:
        here.wall_ns = 0

    assert ended.exec_id == began.exec_id
    assert ended.start_time == began.start_time == exec_time(began.exec_id)
    assert later.start_time == exec_time(later.exec_id) + HOUR_NS


def test_a_process_with_a_clock_of_its_own(here: World) -> None:
    """A time namespace shifts what the process itself sees as the time since the boot."""
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    unshare = ("unshare", "--time", "--boottime", "1000000", "--fork", "/bin/cat", "/proc/uptime")
    process = here.start(*unshare, stdout=-1)
    output, _ = process.communicate(timeout=60)
    here.of(process.pid)
    told = [e[1] for e in here.events if e[1].arguments == "/proc/uptime"]

    assert float(output.split()[0]) > before / 1e9 + 999_999
    assert [each.binary for each in told] == ["/usr/bin/cat"] * 2
    assert told[0].exec_id == told[1].exec_id
    assert before < exec_time(told[0].exec_id) < time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_containers_in_a_pods_container_are_the_pods(here: World) -> None:
    mount = cgroup2()
    assert mount is not None
    uid, outer, inner = "1b4e28ba-2fa1-11d2-883f-0016d3cca427", "a" * 64, "b" * 64
    status = {"name": "main", "containerID": f"containerd://{outer}", "image": "docker"}
    metadata = {"uid": uid, "name": "builder", "namespace": "shop"}
    manifest = {"metadata": metadata, "status": {"containerStatuses": [status]}}
    pods = Pods(Cgroups(mount), here.cgroup)
    pods.learn([], [Resource(kind="Pod", namespace="shop", name="builder", manifest=manifest)])
    slice_ = here.cgroup / f"kubepods-pod{uid.replace('-', '_')}.slice"
    folders = [
        slice_,
        *(slice_ / f"cri-containerd-{outer}.scope" / below for below in ("", "init", f"docker/{inner}")),
    ]
    try:
        for folder in folders:
            folder.mkdir(parents=True)
        found = [_pod_at(here, pods, folder) for folder in folders[2:]]
    finally:
        pods.close()
        for folder in sorted(slice_.rglob("*/"), reverse=True):
            if folder.is_dir():
                folder.rmdir()
        slice_.rmdir()

    assert found == [("shop", "builder", "main", outer)] * 2


def _pod_at(here: World, pods: Pods, cgroup: Path) -> tuple[str, str, str, str]:
    pid = here.run("/bin/sh", "-c", f"echo 0 > {cgroup}/cgroup.procs; /bin/true inside {cgroup}; :")
    here.of(pid)
    program = next(e[1] for e in here.events if e[1].arguments == f"inside {cgroup}")
    assert program.cgroup == cgroup.stat().st_ino
    pod = pods.pod_of(program.cgroup, program.ns.net, program.pid)
    assert pod is not None
    return pod.namespace, pod.name, pod.container, pod.container_id


DEPTH = 9
BOMB = f'b() {{ if [ "$1" -lt {DEPTH} ]; then b $(($1+1)) & b $(($1+1)) & wait; fi; }}; b 0'


def test_a_fork_bomb_is_counted_to_the_last(here: World) -> None:
    here.take()
    before, lost = here.forks, here.kernel.lost()
    pid = here.run("/bin/sh", "-c", BOMB)
    here.of(pid)
    bomb = next(e[1] for e in here.events if e[1].pid == pid)
    ended = [e[1] for e in here.events if e[0] == "exit" and e[1].arguments == bomb.arguments]
    depths = [
        [each.pid for each in here.processes.ancestors(e)].index(pid) + 1 for e in ended if e.pid != pid
    ]

    assert here.kernel.lost() == lost
    assert here.forks == before + 2 ** (DEPTH + 1) - 2
    assert [depths.count(depth) for depth in range(1, DEPTH + 1)] == [
        2**depth for depth in range(1, DEPTH + 1)
    ]
