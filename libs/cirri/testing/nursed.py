"""Programs of Cirri for tests, each a process of its own, forked from one nursery per test process.

They start in a tenth of the time that executing them takes; ``integration/lab/test_demo.py``,
``tests/cli`` and ``tests/deploy`` execute the installed programs.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cirri.nursery import Nursery, Place

SERVICES = Path(__file__).resolve().parents[3] / "services/cirri"
READY_S = 60.0
LOOK_S = 0.05
"""How often who waits looks whether somebody else was told."""


class _Home:
    """The nursery of this process, opened when it is first needed, and again whenever it is gone."""

    def __init__(self) -> None:
        names = sorted(p.parent.name for p in SERVICES.glob("*/__init__.py"))
        self.nursery = Nursery("tests", [f"cirri.{name}" for name in names])
        self.lock = threading.RLock()
        self.codes: dict[int, int] = {}
        atexit.register(self.nursery.close)

    def start(
        self, argv: Sequence[str], env: Mapping[str, str], place: Place, descriptors: Sequence[int]
    ) -> int:
        with self.lock:
            for _ in range(3):  # it refuses where its code has changed meanwhile
                if self.nursery.fileno() < 0:
                    self.nursery.open()
                ready = self.nursery.wait_ready(READY_S)
                if ready and (pid := self.nursery.start(argv, env, place, descriptors)):
                    self.codes.pop(pid, None)
                    return pid
        raise AssertionError("the nursery does not start anything")

    def code(self, pid: int) -> int | None:
        """The exit code of *pid*, if it has ended."""
        with self.lock:
            for word in self.nursery.words():
                if word.what == "ended":
                    self.codes[word.pid] = word.code
            return self.codes.get(pid)


_home = _Home()


class Nursed:
    """A process; used as subprocess.Popen is."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        env: Mapping[str, str],
        netns: str = "",
        streams: tuple[int, int, int],
        sockets: Sequence[int] = (),
    ) -> None:
        """``python -m MODULE ARGUMENT...`` with exactly *env* in the network namespace named *netns*.

        *sockets*: descriptors that it is given as sd_listen_fds(3) has it.
        """
        self.args = [sys.executable, "-m", module, *arguments]
        names = tuple(f"socket{number}" for number in range(len(sockets)))
        place = Place(netns=f"/run/netns/{netns}" if netns else "", sockets=names, session=False)
        self.pid = _home.start(self.args, env, place, [*streams, *sockets])
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        if self.returncode is None:
            self.returncode = _home.code(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, when it has ended.  Raises: subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                assert timeout is not None
                raise subprocess.TimeoutExpired(self.args, timeout)
            assert _home.nursery.fileno() >= 0, "the nursery died, and with it the knowledge of exit codes"
            select.select([_home.nursery], [], [], LOOK_S)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """With SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """With SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start(
    module: str, *, env: Mapping[str, str], log: Path, netns: str = "", sockets: Sequence[int] = ()
) -> Nursed:
    """Start a service, which adds what it says to *log*; it has *env* beside this process's environment."""
    with open(os.devnull) as null, log.open("ab") as out:
        streams = (null.fileno(), out.fileno(), out.fileno())
        return Nursed(module, env=os.environ | env, netns=netns, streams=streams, sockets=sockets)


def run(
    module: str, *arguments: str, env: Mapping[str, str], stdin: str = "", timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """What a program printed, and its exit code.  Raises: subprocess.TimeoutExpired."""
    files = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("stdin", "stdout", "stderr")]
    try:
        os.write(files[0], stdin.encode())
        os.lseek(files[0], 0, os.SEEK_SET)
        process = Nursed(module, *arguments, env=env, streams=(files[0], files[1], files[2]))
        try:
            code = process.wait(timeout_s)
        except BaseException:
            process.kill()
            raise
        said = [os.pread(fd, os.fstat(fd).st_size, 0).decode() for fd in files[1:]]
    finally:
        for fd in files:
            os.close(fd)
    return subprocess.CompletedProcess(process.args, code, *said)
