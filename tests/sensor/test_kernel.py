"""What the kernel's programs tell of real processes: each row runs something and reads it back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.sensor.world import OBJECTS, World, world

from cirri.layout import SENSOR_EVENTS, SensorCounter
from cirri.maps import RingBusy
from cirri.model.runtimeevents import Process
from cirri.sensor.kernel import Kernel, scope_of
from cirri.testing.leftovers import cgroup2

FILES = Path("/tmp")
TRUE, SHELL = (os.path.realpath(shutil.which(name) or "") for name in ("true", "sh"))


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    with world() as one:
        yield one


class Row(NamedTuple):
    """A shell line, and what the last program that it runs is told as."""

    id: str
    line: str
    binary: str
    arguments: str
    flags: str = "execve clone"
    end: tuple[str, int] = ("", 0)


ROWS = [
    Row("plain", "/usr/bin/true; :", TRUE, ""),
    Row("arguments", "/usr/bin/true 'a b' c ''; :", TRUE, '"a b" c ""'),
    Row("status", "sh -c 'exit 7'; :", SHELL, '-c "exit 7"', end=("", 7)),
    Row("signal", "sh -c 'kill -9 $$'; :", SHELL, '-c "kill -9 $$"', end=("SIGKILL", 0)),
    Row("dump", "ulimit -c 0; sh -c 'kill -SEGV $$'; :", SHELL, '-c "kill -SEGV $$"', end=("SIGSEGV", 0)),
    Row("no text", "/usr/bin/true $(printf 'a\\377b'); :", TRUE, "a\\xffb"),
    Row("relative", "cd /usr/bin; ./true; :", TRUE, ""),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.id)
def test_a_program_is_told(here: World, row: Row) -> None:
    pid = here.run("/bin/sh", "-c", row.line, stderr=subprocess.DEVNULL)
    here.of(pid)
    (shell,) = (e[1] for e in here.events if e[0] == "exec" and e[1].pid == pid)
    children = [e for e in here.events if e[1].parent_exec_id == shell.exec_id and e[1].binary == row.binary]
    (_, program, _, _), (_, gone, name, status) = [e for e in children if e[1].flags != "clone"]

    assert (program.binary, program.arguments, program.flags) == (row.binary, row.arguments, row.flags)
    assert gone.exec_id == program.exec_id
    assert (name, status) == row.end


def test_who_started_it_whose_it_is_and_where(here: World, tmp_path: Path) -> None:
    pid = here.run("/bin/sh", "-c", "(/usr/bin/true; /usr/bin/true; :); :", cwd=tmp_path)
    here.of(pid)
    program = [e[1] for e in here.events if e[0] == "exec"][-1]
    chain = list(here.processes.ancestors(program))

    assert program.cwd == str(tmp_path)
    assert program.cgroup == here.cgroup.stat().st_ino
    assert program.ns.net == os.stat("/proc/self/ns/net").st_ino
    assert program.ns.pid == os.stat("/proc/self/ns/pid").st_ino
    assert program.ns.user == os.stat("/proc/self/ns/user").st_ino
    mine = int(Path("/proc/self/status").read_text().split("CapEff:\t")[1].split("\n")[0], 16)
    assert program.cap.effective == mine
    # The subshell never ran a program of its own; above the first shell is this process, from /proc.
    assert [(each.pid, each.binary, each.flags.split()[0]) for each in chain[:3]] == [
        (chain[0].pid, SHELL, "clone"),
        (pid, SHELL, "execve"),
        (os.getpid(), os.path.realpath("/proc/self/exe"), "procFS"),
    ]


def _only(here: World, pid: int) -> Process:
    return next(e[1] for e in here.of(pid) if e[0] == "exec")


def test_long_arguments_are_cut_and_said_to_be(here: World) -> None:
    many = [f"{number:0100}" for number in range(10000)]  # 1 MiB together, as much as execve(2) takes of many
    program = _only(here, here.run("/bin/true", *many))

    assert "truncArgs" in program.flags.split()
    assert program.arguments.startswith(f"{many[0]} {many[1]} ")
    assert 4000 < len(program.arguments) <= 4096


def test_a_long_path_is_cut_and_said_to_be(here: World, tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(8):
        deep = deep / ("d" * 200)
    deep.mkdir(parents=True)
    shutil.copy("/bin/true", deep / "program")
    program = _only(here, here.run(str(deep / "program"), cwd=deep))

    assert {"truncFilename", "truncCwd"} <= set(program.flags.split())
    assert program.binary.startswith(".../ddd")
    assert program.binary.endswith("/program")


MEMFD = """
import os
fd = os.memfd_create("hidden")
os.write(fd, open("/bin/true", "rb").read())
os.execve(fd, ["innocent", "x"], {})
"""
DELETED = """
import os, shutil, sys
shutil.copy("/bin/true", sys.argv[1])
fd = os.open(sys.argv[1], os.O_RDONLY)
os.unlink(sys.argv[1])
os.execve(fd, ["innocent"], {})
"""


def test_a_program_in_no_folder(here: World) -> None:
    program = [e[1] for e in here.of(here.run(sys.executable, "-c", MEMFD)) if e[0] == "exec"][-1]

    assert program.binary == "memfd:hidden"
    assert program.arguments == "x"
    assert program.binary_properties is not None
    assert program.binary_properties.anonymous
    assert not program.binary_properties.deleted
    assert program.binary_properties.links == 0


def test_a_program_whose_name_is_gone(here: World, tmp_path: Path) -> None:
    path = tmp_path / "gone"
    program = [e[1] for e in here.of(here.run(sys.executable, "-c", DELETED, str(path))) if e[0] == "exec"][
        -1
    ]

    assert program.binary == str(path)
    assert program.binary_properties is not None
    assert program.binary_properties.deleted
    assert not program.binary_properties.anonymous


def test_a_script_is_told_as_its_interpreter(here: World, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o755)
    program = _only(here, here.run(str(script), "a"))

    assert (program.binary, program.arguments) == (SHELL, f"{script} a")
    assert "script" in program.flags.split()


NOBODY = 65534


@pytest.mark.parametrize(
    ("mode", "capability", "raised"),
    [
        (0o4755, "", ("PRIVILEGES_RAISED_EXEC_FILE_SETUID",)),
        (0o2755, "", ("PRIVILEGES_RAISED_EXEC_FILE_SETGID",)),
        (0o6755, "", ("PRIVILEGES_RAISED_EXEC_FILE_SETUID", "PRIVILEGES_RAISED_EXEC_FILE_SETGID")),
        (0o755, "net_raw", ("PRIVILEGES_RAISED_EXEC_FILE_CAP",)),
        (0o755, "", ()),
    ],
)
def test_raised_rights(here: World, mode: int, capability: str, raised: tuple[str, ...]) -> None:
    program = FILES / f"cirri-test-raise-{os.getpid()}"
    try:
        shutil.copy("/bin/true", program)
        program.chmod(mode)
        if capability:  # vfs_cap_data, revision 2: effective; permitted CAP_NET_RAW (13)
            data = (0x02000001).to_bytes(4, "little") + (1 << 13).to_bytes(4, "little") + bytes(12)
            os.setxattr(program, "security.capability", data)
        process = _only(here, here.run(str(program), user=NOBODY, group=NOBODY, extra_groups=[]))
    finally:
        program.unlink()

    properties = process.binary_properties
    assert (properties.privileges_changed if properties else ()) == raised
    assert process.credentials.uid == NOBODY
    assert process.credentials.euid == (0 if mode & 0o4000 else NOBODY)
    assert bool(process.cap.effective) == bool(mode & 0o4000 or capability)


def test_threads_are_no_processes(here: World) -> None:
    code = "import threading; [threading.Thread(target=print).start() for _ in range(4)]"
    before = here.forks
    events = here.of(here.run(sys.executable, "-c", code, stdout=subprocess.DEVNULL))

    assert [e[0] for e in events] == ["exec", "exit"]
    assert here.forks == before + 0


def test_forks_by_the_thousand_are_all_told_and_end(here: World) -> None:
    here.take()
    before, ends = here.forks, sum(e[0] == "exit" for e in here.events)
    here.run("/bin/sh", "-c", "i=0; while [ $i -lt 1000 ]; do (exit 3) & i=$((i+1)); done; wait")

    here.until(lambda: sum(e[0] == "exit" for e in here.events) >= ends + 1001)
    assert here.forks == before + 1000
    assert sum(e[3] == 3 for e in here.events[-1001:]) == 1000
    assert here.kernel.lost() == 0


def test_what_finds_no_room_is_counted_exactly(here: World) -> None:
    here.take()
    counters = here.kernel._counters
    told = sum(counters[SensorCounter.TOLD])
    argument = "x" * 4000
    line = f"i=0; while [ $i -lt 1200 ]; do /bin/true {argument}; i=$((i+1)); done"
    here.run("/bin/sh", "-c", line)
    here.until(lambda: True)
    told, lost = sum(counters[SensorCounter.TOLD]) - told, here.kernel.lost()

    assert lost > 0
    # A fork, an exec and an end each; of the shell an exec and an end.
    assert told + lost == 3 * 1200 + 2


def test_others_are_not_told(here: World) -> None:
    here.take()
    before = len(here.events)
    subprocess.run(["/bin/true"], check=True)
    here.run("/bin/true")
    here.until(lambda: len(here.events) >= before + 2)

    assert len(here.events) == before + 2


def test_one_reader_and_programs_that_stay(here: World) -> None:
    mount = cgroup2()
    assert mount is not None
    folder = Path("/sys/fs/bpf") / here.cgroup.name
    with pytest.raises(RingBusy):
        Kernel(folder, OBJECTS, scope_of(here.cgroup, mount))

    here.take()
    here.kernel.close()
    pid = here.run("/bin/true")  # nobody reads: it is kept
    here.kernel = Kernel(folder, OBJECTS, scope_of(here.cgroup, mount))

    assert not here.kernel.replaced
    assert [e[0] for e in here.of(pid)] == ["exec", "exit"]
    assert (folder / "sensor" / SENSOR_EVENTS.name).exists()


def test_ends_by_signals_of_others(here: World) -> None:
    process = here.start("/bin/sleep", "1000")
    here.until(lambda: any(e[1].pid == process.pid for e in here.events))
    process.send_signal(signal.SIGTERM)
    process.wait()

    assert here.of(process.pid)[-1][2:] == ("SIGTERM", 0)
