"""What the benchmarks do to the machine: tools, processes, namespaces, CPUs.  Everything is undone."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from integration.bench.stats import CpuTimes

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
BUILD = HERE / "build"
PREFIX = "cirri-bench-"
"""Every namespace, pin directory and cgroup of a run begins with it."""
START_TIMEOUT_S = 10.0

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

CPUS = sorted(os.sched_getaffinity(0))
"""The CPUs at hand when the run began."""
MEASURED = CPUS[-1]
"""The one CPU that both ends of a latency test share; the harness keeps off it."""
OTHER = CPUS[0]


class BenchError(Exception):
    """A row cannot be measured; the text says why and what to do."""


def run(*command: str | Path, stdin: str | None = None) -> str:
    """Output of *command*; BenchError with its own words if it fails."""
    done = subprocess.run(
        [str(word) for word in command], input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise BenchError(f"{' '.join(map(str, command))}: {said or f'exit {done.returncode}'}")
    return done.stdout


def need(program: str, package: str) -> str:
    """Path of *program*; BenchError naming the Debian *package* if it is not installed."""
    found = shutil.which(program)
    if found is None:
        raise BenchError(f"{program} is not installed: apt-get install {package}")
    return found


def build(name: str, *flags: str) -> Path:
    """The tool ``NAME.c`` of this folder, compiled if it is older than its source."""
    source, tool = HERE / f"{name}.c", BUILD / name
    if not tool.exists() or tool.stat().st_mtime < source.stat().st_mtime:
        BUILD.mkdir(exist_ok=True)
        run(need("clang", "clang"), "-O2", "-Wall", "-Wextra", "-Werror", "-o", tool, source, *flags)
    return tool


def build_bpf(name: str) -> Path:
    """The object of kernel program ``NAME.bpf.c`` of this folder."""
    source, made = HERE / f"{name}.bpf.c", BUILD / f"{name}.bpf.o"
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        BUILD.mkdir(exist_ok=True)
        include = f"-I/usr/include/{platform.machine()}-linux-gnu"
        run(need("clang", "clang"), "-O2", "-g", "-target", "bpf", include, "-c", source, "-o", made)
    return made


def cpu_times(cpu: int = MEASURED) -> CpuTimes:
    """What *cpu* has done since boot."""
    return CpuTimes.parse(Path("/proc/stat").read_text(), cpu)


def facts() -> dict[str, Any]:
    """What the numbers of this machine must be read with."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if "model name" in line), "")
    return {
        "cpu": model,
        "cpus": len(CPUS),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
        "commit": _commit(),
    }


def _commit() -> str:
    with suppress(BenchError):
        return run("git", "-C", REPOSITORY, "describe", "--always", "--dirty").strip()
    return ""


# -- processes ---------------------------------------------------------------


def start(
    *command: str | Path,
    ready: str = "",
    cpu: int | None = None,
    env: dict[str, str] | None = None,
    log: IO[Any] | None = None,
) -> subprocess.Popen[str]:
    """A process in the background, in a group of its own; returns once it printed *ready* (if given).

    It dies with this process, however that ends.
    """

    def placed() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})

    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if log is None else log,
        stderr=subprocess.PIPE if log is None else log,
        text=True,
        start_new_session=True,
        preexec_fn=placed,  # noqa: PLW1509 - this process has no threads yet
        env=None if env is None else os.environ | env,
    )
    if ready:
        assert process.stdout
        assert process.stderr
        line = process.stdout.readline()
        if line.strip() != ready:
            said = process.stderr.read().strip()
            stop(process)
            raise BenchError(f"{command[0]} did not start: {said or line or 'no output'}")
    return process


def stop(
    process: subprocess.Popen[str], *, how: int = signal.SIGTERM, timeout_s: float = 5.0
) -> tuple[str, str]:
    """Ends *process* and its group, by force after *timeout_s*; what it had still to say."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, how)
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
    return out or "", err or ""


@contextmanager
def running(*command: str | Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """:func:`start` for the length of a block."""
    process = start(*command, **options)
    try:
        yield process
    finally:
        stop(process)


# -- namespaces ----------------------------------------------------------------


@contextmanager
def namespaces(*names: str) -> Iterator[list[str]]:
    """Network namespaces ``cirri-bench-NAME`` for the length of a block.

    Addresses are usable at once (no duplicate address detection).
    """
    full = [PREFIX + name for name in names]
    try:
        for name in full:
            run("ip", "netns", "add", name)
            sysctl(name, {"net.ipv6.conf.all.accept_dad": 0, "net.ipv6.conf.default.accept_dad": 0})
            ip(name, "link set lo up")
        yield full
    finally:
        for name in full:
            with suppress(BenchError):
                run("ip", "netns", "delete", name)


def ip(netns: str, *commands: str) -> None:
    """``ip`` *commands* in *netns*, in one process."""
    run("ip", "-n", netns, "-batch", "-", stdin="\n".join(commands) + "\n")


def sysctl(netns: str, values: Mapping[str, int | str]) -> None:
    """Sets kernel parameters of *netns*."""
    run("ip", "netns", "exec", netns, "sysctl", "-qw", *(f"{key}={value}" for key, value in values.items()))


def forwarding(netns: str) -> None:
    """Makes *netns* a router of both families."""
    sysctl(netns, {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1})


# -- one run at a time -----------------------------------------------------------


@contextmanager
def alone() -> Iterator[None]:
    """Keeps other runs of the benchmarks out, and removes what a killed run left."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        try:
            lock.bind("\0cirri-bench")
        except OSError:
            raise BenchError("another run of the benchmarks is under way; two disturb each other") from None
        sweep()
        os.sched_setaffinity(0, {OTHER})
        try:
            yield
        finally:
            os.sched_setaffinity(0, set(CPUS))
            sweep()


def sweep() -> None:
    """Removes namespaces and pins that begin with ``cirri-bench-``."""
    for name in _names(Path("/run/netns")):
        with suppress(BenchError):
            run("ip", "netns", "delete", name)
    for parent in (Path("/sys/fs/bpf"), Path("/run")):
        for name in _names(parent):
            if (parent / name).is_dir():
                shutil.rmtree(parent / name, ignore_errors=True)


def _names(folder: Path) -> Iterable[str]:
    return [entry.name for entry in folder.glob(f"{PREFIX}*")] if folder.is_dir() else []


def wait_until(condition: Any, what: str, timeout_s: float = START_TIMEOUT_S) -> None:
    """Polls *condition* until it is true; BenchError naming *what* after *timeout_s*."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.02)


def words(command: Sequence[str | Path]) -> str:
    """*command* as one would type it."""
    return " ".join(map(str, command))
