"""Namespaces, cgroups and process identities, as the kernel gives them.  An edge."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from cirri.errors import CirriError

NETNS = Path("/run/netns")
CLONE_NEWNET = 0x40000000
POLL_S = 0.005
"""How often a condition of the kernel is looked at that cannot be waited for."""


class CommandFailed(CirriError):
    """A program that the lab needs refused."""

    def __init__(self, command: str, code: int, said: str) -> None:
        super().__init__(f"{command} failed with exit code {code}: {said.strip() or 'it said nothing'}")
        self.command, self.code, self.said = command, code, said


class NoCgroup2(CirriError):
    """The machine has no cgroup v2 mount."""

    hint = "Mount it: mount -t cgroup2 none /sys/fs/cgroup/unified"

    def __init__(self) -> None:
        super().__init__("no cgroup v2 file system is mounted")


def cgroup2() -> Path:
    """Where cgroup v2 is mounted."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    raise NoCgroup2


_libc = ctypes.CDLL(None, use_errno=True)


def set_namespace(path: Path | str) -> None:
    """Move the calling thread into the network namespace at *path*."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {path}")
    finally:
        os.close(fd)


@contextlib.contextmanager
def inside(netns: str) -> Iterator[None]:
    """The calling thread is in namespace *netns* within the block."""
    with open("/proc/thread-self/ns/net", "rb") as back:
        set_namespace(NETNS / netns)
        try:
            yield
        finally:
            if _libc.setns(back.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns back")


def ip_batch(lines: list[str], *, netns: str = "", force: bool = False) -> None:
    """Run ``ip`` commands in one process; with *force*, past those that fail."""
    if not lines:
        return
    command = ["ip", *(["-n", netns] if netns else []), *(["-force"] if force else []), "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines) + "\n", text=True, capture_output=True, check=False)
    if done.returncode and not force:
        raise CommandFailed(" ".join(command), done.returncode, done.stderr)


def namespaces() -> list[str]:
    """Every named network namespace."""
    return sorted(os.listdir(NETNS)) if NETNS.is_dir() else []


def start_time(pid: int) -> int:
    """When *pid* began, in clock ticks since boot; 0 if it is gone or a zombie.

    With it, a pid names one process for ever, although pids are used again.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def alive(pid: int, began: int) -> bool:
    """Whether the process that was *pid* since *began* still runs."""
    return began != 0 and start_time(pid) == began


def rss_bytes(pid: int) -> int:
    """Resident memory of *pid*; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def wait_ended(pid: int, began: int, seconds: float) -> bool:
    """Wait until that process has ended; whether it did in time."""
    deadline = time.monotonic() + seconds
    while alive(pid, began):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def members(cgroup: Path) -> list[int]:
    """Processes in *cgroup* and below."""
    found = []
    for file in [cgroup / "cgroup.procs", *cgroup.rglob("cgroup.procs")] if cgroup.is_dir() else []:
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in file.read_text().split()]
    return sorted(set(found))


def kill_cgroup(cgroup: Path, seconds: float = 5.0) -> None:
    """Kill every process in *cgroup* and below, and remove the folders.  Absent is fine."""
    if not cgroup.is_dir():
        return
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            (cgroup / "cgroup.kill").write_text("1")
        for pid in members(cgroup):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if remove_cgroup(cgroup):
            return
        time.sleep(POLL_S)


def remove_cgroup(cgroup: Path) -> bool:
    """Remove *cgroup* and what is below, if no process is left; whether it is gone."""
    below = sorted((p for p in cgroup.rglob("*") if p.is_dir()), key=lambda p: len(p.parts), reverse=True)
    try:
        for folder in [*below, cgroup]:
            folder.rmdir()
    except FileNotFoundError:
        return not cgroup.exists()
    except OSError:
        return False
    return True
