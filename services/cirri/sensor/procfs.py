"""Processes as /proc shows them now.  An edge."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cirri.model.runtimeevents import Binary, Capabilities, Credentials, Namespaces, Process
from cirri.sensor.facts import Key, arguments_text

DELETED = " (deleted)"
NAMESPACES = (
    *("uts", "ipc", "mnt", "pid", "pid_for_children", "net"),
    *("time", "time_for_children", "cgroup", "user"),
)
ARGUMENTS = 4096
"""Bytes of them that are told, as by the kernel's programs."""


def parent_key(pid: int) -> Key | None:
    """Who is the parent of *pid* now; None: it has none, or is gone."""
    stat = _stat(pid)
    above = _stat(stat[1]) if stat is not None and stat[1] else None
    return (stat[1], above[0]) if stat is not None and above is not None else None


def alive(key: Key) -> bool:
    """Whether it runs."""
    stat = _stat(key[0])
    return stat is not None and stat[0] == key[1]


def key_now(pid: int) -> Key | None:
    """The process of that number; None: there is none."""
    stat = _stat(pid)
    return (pid, stat[0]) if stat is not None else None


def look(key: Key, cgroups: Path) -> Process | None:
    """What is said of it, but its parent; None: it is gone.  *cgroups*: cgroup2's mount."""
    pid, folder = key[0], f"/proc/{key[0]}"
    try:
        status = dict(
            line.split(":\t", 1) for line in _read(f"{folder}/status").splitlines() if ":\t" in line
        )
        argv = _bytes(f"{folder}/cmdline", ARGUMENTS + 1)
        members = _read(f"{folder}/cgroup")
    except OSError:
        return None
    binary, anonymous, deleted = _binary(folder, status)
    uids, gids = (tuple(int(each) for each in status[name].split()) for name in ("Uid", "Gid"))
    found = Process(
        exec_id="",
        pid=pid,
        binary=binary,
        arguments=arguments_text(argv[:ARGUMENTS]),
        cwd=_link(f"{folder}/cwd"),
        flags="procFS truncArgs" if len(argv) > ARGUMENTS else "procFS",
        auid=_login(folder),
        credentials=Credentials(
            uid=uids[0],
            euid=uids[1],
            suid=uids[2],
            fsuid=uids[3],
            gid=gids[0],
            egid=gids[1],
            sgid=gids[2],
            fsgid=gids[3],
        ),
        cap=Capabilities(
            permitted=int(status["CapPrm"], 16),
            effective=int(status["CapEff"], 16),
            inheritable=int(status["CapInh"], 16),
        ),
        ns=Namespaces(**{name: namespace(pid, name) for name in NAMESPACES}),
        binary_properties=Binary(anonymous=anonymous, deleted=deleted) if anonymous or deleted else None,
        cgroup=_cgroup(members, cgroups),
    )
    return found if alive(key) else None  # else it was somebody else's


def namespace(pid: int, name: str) -> int:
    """The inode of a namespace of *pid*; 0: not known."""
    with suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/{name}").st_ino
    return 0


def members(cgroup: Path) -> Iterator[int]:
    """Processes of *cgroup* and below."""
    for file in cgroup.rglob("cgroup.procs"):
        with suppress(OSError):
            yield from (int(each) for each in file.read_text().split())


def _stat(pid: int) -> tuple[int, int] | None:
    """(ticks at the beginning, number of the parent)."""
    try:
        fields = _read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return int(fields[19]), int(fields[1])


def _binary(folder: str, status: dict[str, str]) -> tuple[str, bool, bool]:
    """(path, whether it is in no folder, whether its name is gone)."""
    path = _link(f"{folder}/exe")
    if not path:
        return f"[{status.get('Name', '')}]", False, False  # a thread of the kernel, or nobody may know
    deleted, path = path.endswith(DELETED), path.removesuffix(DELETED)
    if path.startswith("/memfd:"):
        return path[1:], True, False
    return path, False, deleted


def _cgroup(text: str, mount: Path) -> int:
    path = next((line[3:] for line in text.splitlines() if line.startswith("0::")), "")
    with suppress(OSError):
        return os.stat(f"{mount}{path}").st_ino if path else 0
    return 0


def _login(folder: str) -> int:
    with suppress(OSError, ValueError):
        return int(_read(f"{folder}/loginuid"))
    return 0xFFFFFFFF


def _link(path: str) -> str:
    with suppress(OSError):
        return os.fsencode(os.readlink(path)).decode(errors="backslashreplace")
    return ""


def _bytes(path: str, most: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(most)


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read().decode(errors="replace")
