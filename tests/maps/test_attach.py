"""Links to cgroups: pinned, counted on real sockets, replaced without a gap."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from cirri.layout import U32_NUMBER, U64_NUMBER
from cirri.maps import (
    AttachType,
    BpffsMissing,
    BpfMap,
    KernelRefused,
    Objects,
    Program,
    attach_cgroup,
    detach,
)
from cirri.maps.info import link_info
from cirri.maps.libbpf import object_get

CONNECT = """
import socket, sys
for _ in range(int(sys.argv[1])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(("127.0.0.1", 9))
"""


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of our own."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    root = next(Path(fields[1]) for fields in mounts if fields[2] == "cgroup2")
    path = root / f"cirri-test-{uuid4().hex[:12]}"
    path.mkdir()
    yield path
    if path.exists():
        path.rmdir()


@pytest.fixture
def versions(objects: Path, bpffs: Path) -> Iterator[tuple[Program, Program]]:
    """Two versions of a program, which count in slot 0 and in slot 1."""
    loads = [Objects.load(objects, bpffs, names=["kinds"], rodata={"slot": slot}) for slot in (0, 1)]
    yield loads[0]["cgroup/connect4"], loads[1]["cgroup/connect4"]
    for programs in loads:
        programs.close()


def connect(cgroup: Path, times: int) -> subprocess.Popen[bytes]:
    """A process in *cgroup* that calls connect so often."""
    return subprocess.Popen(
        [
            *("sh", "-c", f'echo $$ > {cgroup}/cgroup.procs; exec "$@"', "sh"),
            *(sys.executable, "-S", "-c", CONNECT, str(times)),
        ]
    )


def counted(bpffs: Path) -> list[int]:
    with BpfMap(bpffs / "cirri_calls", U32_NUMBER, U64_NUMBER) as calls:
        return [calls[0], calls[1]]


def test_a_link_lives_as_long_as_its_pin(
    versions: tuple[Program, Program], cgroup: Path, bpffs: Path
) -> None:
    pin = bpffs / "links" / "connect4"

    assert attach_cgroup(versions[0], cgroup, pin=pin) == "attached"
    assert connect(cgroup, 3).wait(30) == 0
    assert counted(bpffs) == [3, 0]

    assert attach_cgroup(versions[1].fd, cgroup, AttachType.CGROUP_INET4_CONNECT, pin) == "updated"
    assert connect(cgroup, 2).wait(30) == 0
    assert counted(bpffs) == [3, 2]
    assert [path.name for path in pin.parent.iterdir()] == ["connect4"]

    assert detach(pin)
    assert not detach(pin)
    assert connect(cgroup, 4).wait(30) == 0
    assert counted(bpffs) == [3, 2]


def test_no_call_escapes_a_replacement(versions: tuple[Program, Program], cgroup: Path, bpffs: Path) -> None:
    pin = bpffs / "connect4"
    attach_cgroup(versions[0], cgroup, pin=pin)
    calls, swaps, threads = 20_000, 0, threading.active_count()

    process = connect(cgroup, calls)
    while process.poll() is None:
        swaps += 1
        assert attach_cgroup(versions[swaps % 2], cgroup, pin=pin) == "updated"

    assert process.returncode == 0
    assert sum(counted(bpffs)) == calls
    assert min(counted(bpffs)) > 0
    assert swaps > 10
    assert threading.active_count() == threads


def test_a_link_of_a_cgroup_that_is_gone_is_replaced(
    versions: tuple[Program, Program], cgroup: Path, bpffs: Path
) -> None:
    pin = bpffs / "connect4"
    attach_cgroup(versions[0], cgroup, pin=pin)
    cgroup.rmdir()
    cgroup.mkdir()

    assert attach_cgroup(versions[0], cgroup, pin=pin) == "attached"
    assert connect(cgroup, 1).wait(30) == 0
    assert counted(bpffs) == [1, 0]
    link = object_get(pin)
    assert link_info(link).cgroup_id == cgroup.stat().st_ino
    os.close(link)


def test_what_cannot_be_attached(versions: tuple[Program, Program], cgroup: Path, bpffs: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(KernelRefused, match=f"attach to {cgroup}: "):
        attach_cgroup(versions[0], cgroup, AttachType.CGROUP_INET6_CONNECT, bpffs / "wrong")
    with pytest.raises(BpffsMissing):
        attach_cgroup(versions[0], cgroup, pin=cgroup / "no-bpffs")
    with pytest.raises(FileNotFoundError):
        attach_cgroup(versions[0], cgroup / "absent", pin=bpffs / "absent")
    with pytest.raises(TypeError, match="attach type"):
        attach_cgroup(versions[0].fd, cgroup, pin=bpffs / "bare")

    assert connect(cgroup, 1).wait(30) == 0
    assert counted(bpffs) == [0, 0]
    assert len(os.listdir("/proc/self/fd")) == before
