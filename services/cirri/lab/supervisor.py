"""The process that keeps a lab's processes running: ``python -m cirri.lab.supervisor LAB``.

It sleeps until a child dies and starts it again at once; one that keeps
dying right after its start is started more and more slowly.  SIGTERM ends the lab: the children,
the pods, then itself.  When it is killed, everything else goes on: pods and services are not its
hostages.
"""

from __future__ import annotations

import contextlib
import ctypes
import heapq
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

import msgspec

from cirri.lab.enter import NETNS, cgroup2, members, set_namespace, start_time
from cirri.lab.files import write
from cirri.lab.services import Plan, Process
from cirri.lab.sockets import Sockets
from cirri.lab.topology import Paths, paths

EARLY_S = 1.0
"""A child that lives shorter than this died of its start."""
PATIENCE = 3
"""Early deaths in a row that are answered at once."""
BACKOFF_S = (0.1, 5.0)
STOP_S = 3.0
"""How long children have to obey SIGTERM."""
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")


class Seen(msgspec.Struct, kw_only=True):
    """What ``cirri lab status`` is told of one child."""

    name: str
    pid: int
    began: int
    restarts: int = 0
    exits: list[int] = []
    """The last exit codes; minus the signal's number for signals."""


class Report(msgspec.Struct, kw_only=True):
    """Content of ``supervisor.json``."""

    pid: int
    began: int
    children: list[Seen]


class Child:
    """One process and its history."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.seen = Seen(name=process.name, pid=0, began=0)
        self._early = 0
        self._started = 0.0

    def start(self, sockets: Sockets) -> int:
        """Run it; its pid."""
        pid = os.fork()
        if pid == 0:
            _become(self.process, sockets)
        self._started = time.monotonic()
        self.seen.pid, self.seen.began = pid, start_time(pid)
        return pid

    def ended(self, code: int) -> float:
        """It has ended: how long to wait before it is started again."""
        self.seen.exits = [*self.seen.exits, code][-5:]
        self.seen.pid, self.seen.restarts = 0, self.seen.restarts + 1
        self._early = self._early + 1 if time.monotonic() - self._started < EARLY_S else 0
        return pause(self._early)


def pause(early: int) -> float:
    """Seconds before a child is started again that died early *early* times in a row.  Pure."""
    if early <= PATIENCE:
        return 0.0
    first, longest = BACKOFF_S
    return float(min(longest, first * 2 ** (early - PATIENCE - 1)))


def _become(process: Process, sockets: Sockets) -> NoReturn:
    """In the child: namespace, cgroup, standard streams, sockets, program."""
    try:
        os.setsid()
        Path(process.cgroup, "cgroup.procs").write_text("0")
        set_namespace(NETNS / process.netns)
        null = os.open(os.devnull, os.O_RDONLY)
        log = os.open(process.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        env = {name: os.environ[name] for name in INHERITED if name in os.environ}
        env |= process.env | sockets.hand_over(process.sockets)
        os.execvpe(process.argv[0], process.argv, env)  # noqa: S606 - no shell is meant
    except OSError as error:
        os.write(2, f"cannot start {process.name}: {error}\n".encode())
    os._exit(127)


class Supervisor:
    """Children, their deaths, and the clock."""

    def __init__(self, plan: Plan, where: Paths) -> None:
        self._children = [Child(p) for p in plan.processes]
        self._where = where
        self._sockets = Sockets()
        self._due: list[tuple[float, int]] = []
        self._running: dict[int, int] = {}
        self._stopping = False
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake)
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        adopt_orphans()
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for child in self._children:
            self._sockets.open(child.process.sockets)
        for index in range(len(self._children)):
            self._start(index)
        self._report()
        while not self._stopping:
            self._wait(self._due[0][0] if self._due else None)
            while self._due and self._due[0][0] <= time.monotonic():
                self._start(heapq.heappop(self._due)[1])
            self._report()
        self._end()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _start(self, index: int) -> None:
        self._running[self._children[index].start(self._sockets)] = index

    def _wait(self, until: float | None) -> None:
        """For a signal; then note every death, and start again who is due at once."""
        left = None if until is None else max(0.0, until - time.monotonic()) * 1000
        if self._poll.poll(left):
            os.read(self._wake, 512)
        while ended := _ended():
            pid, code = ended
            index = self._running.pop(pid, None)
            if index is None:
                continue  # an orphan of a dead child, e.g. a pod's process
            delay = self._children[index].ended(code)
            if not self._stopping:
                heapq.heappush(self._due, (time.monotonic() + delay, index))

    def _end(self) -> None:
        """Everybody gets SIGTERM, but the bus only after those who say goodbye on it."""
        everyone = range(len(self._children))
        for group in (everyone[1:], everyone[:1]):
            for number in (signal.SIGTERM, signal.SIGKILL):
                self._signal(group, number)
        self._reap_pods()
        self._where.supervisor.unlink(missing_ok=True)

    def _signal(self, group: range, number: signal.Signals) -> None:
        deadline = time.monotonic() + STOP_S
        for pid, index in self._running.items():
            if index in group:
                os.kill(pid, number)
        while time.monotonic() < deadline and any(i in group for i in self._running.values()):
            self._wait(deadline)

    def _reap_pods(self) -> None:
        """Pods became this process's children when the controller ended: they end with the lab."""
        deadline = time.monotonic() + STOP_S
        while time.monotonic() < deadline:
            left = [pid for pid in members(self._where.cgroup) if pid != os.getpid()]
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not left:
                return
            self._wait(time.monotonic() + 0.01)

    def _report(self) -> None:
        seen = [c.seen for c in self._children]
        report = Report(pid=os.getpid(), began=start_time(os.getpid()), children=seen)
        write(self._where.supervisor, msgspec.json.encode(report))


def adopt_orphans() -> None:
    """Processes whose parent dies become this process's children, and so leave no zombies."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def _ended() -> tuple[int, int] | None:
    """A child that has ended, and its exit code; None if there is none now."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def main() -> None:
    """Keep the lab named on the command line running."""
    where = paths(sys.argv[1], cgroup2())
    plan = msgspec.json.decode(where.plan.read_bytes(), type=Plan)
    own = where.cgroup / "supervisor"
    own.mkdir(exist_ok=True)
    (own / "cgroup.procs").write_text("0")
    Supervisor(plan, where).run()


if __name__ == "__main__":
    main()
