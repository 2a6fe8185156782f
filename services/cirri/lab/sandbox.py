"""What is known of a running pod, in a file that outlives the process that started it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from cirri.lab.enter import alive
from cirri.lab.files import write
from cirri.lab.topology import Paths


class Container(Struct, kw_only=True):
    """One container's process."""

    name: str
    image: str
    argv: list[str]
    env: dict[str, str] = {}
    says_ready: bool = False
    pid: int = 0
    began: int = 0
    """With *pid* it names one process for ever; see :func:`cirri.lab.enter.start_time`."""
    ready: bool = False
    restarts: int = 0
    exit_code: int | None = None
    """Of a container that has ended for good."""

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return alive(self.pid, self.began)


class Sandbox(Struct, kw_only=True):
    """A pod on this machine: namespace, addresses, processes."""

    uid: str
    namespace: str
    name: str
    node: str
    container_id: str
    """What the CNI plugin knows the pod by."""
    netns: str
    addresses: list[str] = []
    """IPv4 first; empty until CNI ADD has succeeded."""
    result: dict[str, Any] = {}
    """The plugin's result, for CHECK and DEL."""
    started: str = ""
    """RFC 3339."""
    restart_policy: str = "Always"
    containers: list[Container] = []

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name)."""
        return self.namespace, self.name

    def folder(self, where: Paths) -> Path:
        """Where its files are."""
        return where.pods / self.namespace / self.name

    def cgroup(self, where: Paths) -> Path:
        """Where its processes are."""
        return where.pod_cgroup(self.node, self.namespace, self.name)

    def save(self, where: Paths) -> None:
        """Write the file."""
        folder = self.folder(where)
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / "state.json", msgspec.json.encode(self), mode=0o600)

    def forget(self, where: Paths) -> None:
        """Remove the file and everything beside it."""
        shutil.rmtree(self.folder(where), ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder(where).parent.rmdir()


def load(where: Paths, namespace: str, name: str) -> Sandbox | None:
    """The pod of that name; None if there is none."""
    try:
        return msgspec.json.decode((where.pods / namespace / name / "state.json").read_bytes(), type=Sandbox)
    except FileNotFoundError:
        return None


def load_all(where: Paths) -> list[Sandbox]:
    """Every pod of the lab, by namespace and name."""
    found = [
        load(where, p.parent.parent.name, p.parent.name) for p in sorted(where.pods.glob("*/*/state.json"))
    ]
    return [s for s in found if s is not None]
