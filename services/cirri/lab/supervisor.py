"""The process that keeps a lab's processes running: ``python -m cirri.lab.supervisor LAB``.

It sleeps until a child dies and starts it again at once; one that keeps
dying right after its start is started more and more slowly.  SIGTERM ends the lab: the children,
the pods, then itself.  When it is killed, everything else goes on: pods and services are not its
hostages.

Services are forked from a nursery (``cirri.nursery``), one more child; while there is none, they
are executed.
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

import msgspec

from cirri.lab.enter import NETNS, cgroup2, members, start_time
from cirri.lab.files import write
from cirri.lab.services import Plan, Process
from cirri.lab.sockets import Sockets
from cirri.lab.topology import Paths, paths
from cirri.nursery import Nursery, Place, nursable, settle

EARLY_S = 1.0
"""A child that lives shorter than this died of its start."""
PATIENCE = 3
"""Early deaths in a row that are answered at once."""
BACKOFF_S = (0.1, 5.0)
STOP_S = 3.0
"""How long children have to obey SIGTERM."""
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
NURSERY = "nursery"
READY_S = 15.0
"""How long the first services wait for it: it takes less time than one of them would by itself."""


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

    def __init__(self, name: str) -> None:
        self.seen = Seen(name=name, pid=0, began=0)
        self._early = 0
        self._started = 0.0

    def started(self, pid: int) -> None:
        """It runs, as *pid*."""
        self._started = time.monotonic()
        self.seen.pid, self.seen.began = pid, start_time(pid)

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


def _execute(process: Process, env: dict[str, str], place: Place, descriptors: list[int]) -> int:
    """Run *process* in a new child; its pid."""
    if pid := os.fork():
        return pid
    try:
        env |= settle(place, descriptors)
        os.execvpe(process.argv[0], process.argv, env)  # noqa: S606 - no shell is meant
    except OSError as error:
        os.write(2, f"cannot start {process.name}: {error}\n".encode())
    os._exit(127)


class Supervisor:
    """Children, their deaths, and the clock."""

    def __init__(self, plan: Plan, where: Paths) -> None:
        self._plan = plan.processes
        modules = [module for process in plan.processes if (module := nursable(process.argv))]
        self._nursery = Nursery(f"lab {plan.lab}", modules)
        names = [process.name for process in plan.processes] + ([NURSERY] if modules else [])
        self._children = [Child(name) for name in names]
        self._where = where
        self._sockets = Sockets()
        self._due: list[tuple[float, int]] = []
        self._running: dict[int, int] = {}
        self._stopping = False
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake)

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        adopt_orphans()
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for process in self._plan:
            self._sockets.open(process.sockets)
        self._start_all()
        self._report()
        while not self._stopping:
            self._wait(self._due[0][0] if self._due else None)
            while self._due and self._due[0][0] <= time.monotonic():
                self._start(heapq.heappop(self._due)[1])
            self._report()
        self._end()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _start_all(self) -> None:
        """The nursery and what it has nothing to do with, then, when it is ready, the rest."""
        nursed = [index for index, process in enumerate(self._plan) if nursable(process.argv)]
        for index in reversed(range(len(self._children))):
            if index not in nursed:
                self._start(index)
        self._nursery.wait_ready(READY_S)
        for index in nursed:
            self._start(index)

    def _start(self, index: int) -> None:
        pid = self._launch(self._plan[index]) if index < len(self._plan) else self._nursery.open()
        self._children[index].started(pid)
        self._running[pid] = index

    def _launch(self, process: Process) -> int:
        """Have the nursery run it, or execute it; its pid."""
        place = Place(
            netns=str(NETNS / process.netns),
            cgroup=process.cgroup,
            sockets=tuple(one.name for one in process.sockets),
        )
        env = {name: os.environ[name] for name in INHERITED if name in os.environ} | process.env
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            log = os.open(process.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            log = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            descriptors = [null, log, log, *self._sockets.descriptors(process.sockets)]
            nursed = nursable(process.argv)
            pid = self._nursery.start(process.argv, env, place, descriptors) if nursed else 0
            return pid or _execute(process, env, place, descriptors)
        finally:
            os.close(null)
            os.close(log)

    def _wait(self, until: float | None) -> None:
        """For a signal or the nursery; then note every death, and start again who is due at once."""
        left = None if until is None else max(0.0, until - time.monotonic())
        awaited = [fd for fd in (self._wake, self._nursery.fileno()) if fd >= 0]
        if self._wake in select.select(awaited, [], [], 0 if self._nursery.heard else left)[0]:
            os.read(self._wake, 512)
        for word in self._nursery.words():
            if word.what == "ended":
                self._dead(word.pid, word.code)
        while ended := _ended():
            self._dead(*ended)

    def _dead(self, pid: int, code: int) -> None:
        index = self._running.pop(pid, None)
        if index is None:
            return  # an orphan of a dead child, e.g. a pod's process
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
                with contextlib.suppress(ProcessLookupError):  # the nursery tells of its dead, later
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
