"""The catalogue: which local program stands for a container image.  Pure.

Images that are not in it run the container's own ``command``, found on this machine, or nothing
at all ("pause").
"""

from __future__ import annotations

import os.path
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cirri.lab.objects import Manifest

PROGRAMS = Path(__file__).parent / "programs"
READY_FD = "READY_FD"
"""Stands in a program's arguments for the file descriptor on which it says that it serves."""
PAUSE = ("sleep", "infinity")
SHELLS = {"ash", "bash", "busybox"}


class Program(NamedTuple):
    """What to run for a container."""

    argv: tuple[str, ...]
    says_ready: bool = False
    """Whether it takes :data:`READY_FD` and writes to it once it serves; others are ready when they run."""


def _web(site: str) -> Callable[[Mapping[str, str], Path], Program]:
    def program(env: Mapping[str, str], records: Path) -> Program:
        del records
        port = env.get("PORT", "80")
        flags = ("--port", port, "--ready-fd", READY_FD)
        return Program((sys.executable, "-I", "-S", str(PROGRAMS / "web.py"), site, *flags), says_ready=True)

    return program


def _nameserver(env: Mapping[str, str], records: Path) -> Program:
    del env
    flags = ("--ready-fd", READY_FD)
    module = "cirri.lab.programs.nameserver"
    return Program((sys.executable, "-m", module, str(records), *flags), says_ready=True)


CATALOGUE: dict[str, Callable[[Mapping[str, str], Path], Program]] = {
    "cilium/starwars": _web("deathstar"),
    "cilium/json-mock": _web("echo"),
    "coredns": _nameserver,
    "coredns/coredns": _nameserver,
}
"""Repository without registry -> program of (environment, DNS records file)."""


def repository(image: str) -> str:
    """*image* without registry, tag and digest: ``quay.io/cilium/starwars:1.0`` -> ``cilium/starwars``."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    name = head + slash + last.partition(":")[0]
    first, slash, rest = name.partition("/")
    return rest if slash and ("." in first or ":" in first or first == "localhost") else name


def program(
    container: Manifest, env: Mapping[str, str], records: Path, which: Callable[[str], str | None]
) -> Program:
    """What to run for *container*.  *which* finds a program on this machine (``shutil.which``)."""
    command = list(container.get("command") or [])
    if not command:
        known = CATALOGUE.get(repository(container.get("image", "")))
        return known(env, records) if known else Program(PAUSE)
    name = os.path.basename(command[0])
    found = which(command[0]) or which(name) or ("/bin/sh" if name in SHELLS else None)
    return Program((found or command[0], *command[1:], *(container.get("args") or [])))


def environment(container: Manifest, facts: Mapping[str, str]) -> dict[str, str]:
    """The container's ``env``; *facts* answers ``fieldRef``\\s, e.g. ``metadata.name``."""
    result = {}
    for entry in container.get("env") or []:
        source: dict[str, Any] = (entry.get("valueFrom") or {}).get("fieldRef") or {}
        result[entry["name"]] = str(entry.get("value") or facts.get(source.get("fieldPath", ""), ""))
    return result
