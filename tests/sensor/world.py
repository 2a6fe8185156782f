"""The real programs in the kernel, for the processes of one cgroup; what they tell, understood."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from cirri.layout import SensorExit, SensorFork, SensorSocket
from cirri.model.runtimeevents import Process, Socket
from cirri.sensor import procfs
from cirri.sensor.facts import Exec, decoded, ended
from cirri.sensor.kernel import Kernel, scope_of
from cirri.sensor.processes import Processes
from cirri.sensor.sockets import TYPES, socket_of
from cirri.testing.leftovers import cgroup2

OBJECTS = Path(__file__).parents[2] / "bpf/build"
TOLD_S = 20.0
Event = tuple[str, Process, str, int]
"""(type, process, signal, status)."""


class World:
    """A cgroup, and who is in it."""

    def __init__(self, kernel: Kernel, cgroup: Path, mount: Path) -> None:
        self.kernel, self.cgroup = kernel, cgroup
        self.processes = Processes(
            "node", lambda *_: None, partial(procfs.look, cgroups=mount), procfs.parent_key, procfs.key_now
        )
        self.folder = Path("/sys/fs/bpf") / cgroup.name / "sensor"
        self.events: list[Event] = []
        self.forks = 0
        self.sockets: list[tuple[str, Process, Socket]] = []
        self.wall_ns = 0
        """What is added to CLOCK_BOOTTIME for the time of day."""

    def start(self, *argv: str, **options: object) -> subprocess.Popen[bytes]:
        """Start a program in the cgroup."""
        procs = os.open(self.cgroup / "cgroup.procs", os.O_WRONLY)

        def enter() -> None:
            os.write(procs, b"0")

        try:
            # One thread: nothing can go wrong between fork and exec.
            return subprocess.Popen(argv, preexec_fn=enter, **options)  # type: ignore[call-overload,no-any-return]  # noqa: PLW1509
        finally:
            os.close(procs)

    def run(self, *argv: str, **options: object) -> int:
        """Start it and wait for its end; its number."""
        process = self.start(*argv, **options)
        process.wait(60)
        return process.pid

    def take(self) -> None:
        """Understand what has been told."""
        while records := self.kernel.take():
            for raw in records:
                said = decoded(raw)
                if isinstance(said, Exec):
                    self.events.append(("exec", self.processes.exec(said, self.wall_ns), "", 0))
                elif isinstance(said, SensorFork):
                    self.forks += 1
                    self.processes.fork(said, self.wall_ns)
                elif isinstance(said, SensorSocket):
                    process = self.processes.at(said.pid, said.start, self.wall_ns, said.cgroup)
                    self.sockets.append((TYPES[said.step], process, socket_of(said)))
                elif isinstance(said, SensorExit) and (gone := self.processes.exit(said, self.wall_ns)):
                    self.events.append(("exit", gone, *ended(said.code)))

    def until(self, ready: Callable[[], bool]) -> None:
        """Take until *ready*."""
        deadline = time.monotonic() + TOLD_S
        while True:
            self.take()
            if ready():
                return
            assert time.monotonic() < deadline, self.events
            time.sleep(0.01)

    def of(self, pid: int) -> list[Event]:
        """The events of a number, its end among them."""
        self.until(lambda: any(e[0] == "exit" and e[1].pid == pid for e in self.events))
        return [event for event in self.events if event[1].pid == pid]


@contextmanager
def world() -> Iterator[World]:
    """Everything there is for one test file."""
    mount = cgroup2()
    assert mount is not None
    name = f"cirri-test-sensor-{os.getpid()}"
    cgroup, bpffs = mount / name, Path("/sys/fs/bpf") / name
    cgroup.mkdir()
    try:
        kernel = Kernel(bpffs, OBJECTS, scope_of(cgroup, mount))
        try:
            yield World(kernel, cgroup, mount)
        finally:
            kernel.close()
    finally:
        for path in sorted((bpffs / "sensor").glob("*")):
            path.unlink()
        (bpffs / "sensor").rmdir()
        bpffs.rmdir()
        (cgroup / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + TOLD_S
        while (cgroup / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        cgroup.rmdir()
