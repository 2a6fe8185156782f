"""Find and remove what a test run left behind: it may have been killed half-way.

Everything that tests make on the machine carries the prefix ``cirri-test-`` (namespaces, links,
pins, cgroups, folders) or belongs to a lab whose name begins with ``test-``.  ``python -m
cirri.testing.leftovers`` removes it; with ``--fail`` it exits 1 if there was anything.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

NAMESPACES = Path("/run/netns")
BPFFS = Path("/sys/fs/bpf")
LARGE = Path("/var/tmp")
"""Where tests have folders that are too large for memory."""


def cgroup2() -> Path | None:
    """Where cgroup v2 is mounted; None if it is not."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None


def _labs() -> set[str]:
    folders = [Path("/run/cirri"), Path("/var/lib/cirri"), BPFFS / "cirri"]
    if group := cgroup2():
        folders.append(group / "cirri")
    return {p.name for folder in folders if folder.is_dir() for p in folder.glob("test-*")}


def _processes(namespaces: list[Path]) -> Iterator[int]:
    """Processes that live in one of *namespaces*, or in a container of a test's runtime."""
    inodes = {p.stat().st_ino for p in namespaces}
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            root = (proc / "mountinfo").read_text().partition("\n")[0].split()
            if (proc / "ns/net").stat().st_ino in inodes or "/cirri-test-" in "".join(root[3:4]):
                yield int(proc.name)
        except OSError:
            continue  # it ended meanwhile


def _mounts() -> list[str]:
    """What runtimes of tests have mounted, the innermost first."""
    places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [p for p in reversed(places) if "/cirri-test-" in p and "/containerd/" in p]


def _links() -> list[str]:
    return [p.name for p in Path("/sys/class/net").glob("cirri-test*")]


def found() -> list[str]:
    """Everything that is left, one line each."""
    namespaces = sorted(NAMESPACES.glob("cirri-test-*")) if NAMESPACES.is_dir() else []
    lines = [f"namespace {p.name}" for p in namespaces]
    lines += [f"process {pid} in a test namespace" for pid in _processes(namespaces)]
    lines += [f"link {name}" for name in _links()]
    lines += [f"mount {place}" for place in _mounts()]
    lines += [f"lab {name}" for name in sorted(_labs())]
    lines += [f"pins {p}" for p in BPFFS.glob("cirri-test-*")]
    lines += [f"folder {p}" for p in LARGE.glob("cirri-test-*")]
    if group := cgroup2():
        lines += [f"cgroup {p}" for p in group.glob("cirri-test-*")]
    return lines


def sweep() -> list[str]:
    """Remove what :func:`found` lists; returns that list."""
    lines = found()
    cirri = Path(sys.executable).with_name("cirri")
    for name in sorted(_labs()):
        subprocess.run([cirri, "lab", "down", "--name", name], check=False, stdout=subprocess.DEVNULL)
    namespaces = sorted(NAMESPACES.glob("cirri-test-*")) if NAMESPACES.is_dir() else []
    for pid in _processes(namespaces):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    for place in _mounts():
        subprocess.run(["umount", "--lazy", place], check=False)
    for path in namespaces:
        subprocess.run(["ip", "netns", "delete", path.name], check=False)
    for name in _links():
        subprocess.run(["ip", "link", "delete", name], check=False, stderr=subprocess.DEVNULL)
    for path in BPFFS.glob("cirri-test-*"):
        shutil.rmtree(path, ignore_errors=True)
    if group := cgroup2():
        for top in group.glob("cirri-test-*"):
            for folder in sorted([top, *(p for p in top.rglob("*") if p.is_dir())], reverse=True):
                _empty_and_remove(folder)
    for path in LARGE.glob("cirri-test-*"):
        shutil.rmtree(path, ignore_errors=True)
    return lines


def _empty_and_remove(folder: Path) -> None:
    for pid in (folder / "cgroup.procs").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    try:
        folder.rmdir()
    except OSError:
        subprocess.run(["rmdir", folder], check=False)  # its processes are still on their way out


if __name__ == "__main__":
    left = sweep()
    for entry in left:
        sys.stderr.write(f"removed: {entry}\n")
    sys.exit(1 if left and "--fail" in sys.argv else 0)
