"""Paths of cgroups by the numbers that the kernel's programs tell.  An edge; paths are remembered."""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

FILEID_KERNFS = 0xFE
"""linux/exportfs.h: the handle is the inode's number."""
KEPT = 4096
_libc = ctypes.CDLL(None, use_errno=True)
_CONTAINER = re.compile(r"[0-9a-f]{64}")
_POD = re.compile(r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})")


class Place(NamedTuple):
    """What a path tells of Kubernetes: the pod's UID and the container's id; empty: nothing."""

    pod_uid: str
    container_id: str


def place(path: str) -> Place:
    """Where in Kubernetes a cgroup is, as runtimes and kubelets of all drivers name theirs.

    ``.../kubepods-burstable-pod1b4e28ba_2fa1_....slice/cri-containerd-0123....scope`` (systemd),
    ``.../kubepods/burstable/pod1b4e28ba-2fa1-.../0123...`` (cgroupfs).  Containers inside of containers
    (their cgroups are below) are their pod's: the first of each counts.
    """
    pod, container = _POD.search(path), _CONTAINER.search(path)
    return Place(pod[1].replace("_", "-") if pod else "", container[0] if container else "")


def mount_of_cgroups() -> Path | None:
    """Where cgroup2 is mounted; None: nowhere."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None


class Cgroups:
    """The hierarchy that is mounted at *mount*."""

    def __init__(self, mount: Path) -> None:
        self.mount = mount
        self._paths: OrderedDict[int, str] = OrderedDict()
        self._fd = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def path(self, number: int) -> str:
        """Below the mount, with a leading slash; "": it is gone, or not to be seen."""
        if number in self._paths:
            self._paths.move_to_end(number)
            return self._paths[number]
        found = self._ask(number)
        if found:
            self._paths[number] = found
            if len(self._paths) > KEPT:
                self._paths.popitem(last=False)
        return found

    def _ask(self, number: int) -> str:
        """By open_by_handle_at(2), whose handle for this file system is the number."""
        handle = ctypes.create_string_buffer(struct.pack("=IiQ", 8, FILEID_KERNFS, number), 16)
        fd = _libc.open_by_handle_at(self._fd, handle, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if fd < 0:
            return ""
        with suppress(OSError):
            try:
                return os.readlink(f"/proc/self/fd/{fd}").removeprefix(str(self.mount)) or "/"
            finally:
                os.close(fd)
        return ""
