"""Where a process is to live, what is said about it, and how it moves in."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

CLONE_NEWNET = 0x40000000
FIRST_FD = 3
"""Where a process looks for sockets that it is given (sd_listen_fds(3))."""
CHANGED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE)
"""Signals that service managers treat in their own way."""


class Place(Struct, frozen=True, kw_only=True):
    """Surroundings of a process."""

    netns: str = ""
    """Path of its network namespace; empty: the one it is started from."""
    cgroup: str = ""
    """Path of its cgroup, likewise."""
    session: bool = True
    """Whether it has one of its own."""
    sockets: tuple[str, ...] = ()
    """Names of the sockets that it is given (``LISTEN_FDNAMES``)."""


class Request(Struct, frozen=True):
    """To the nursery; with it the descriptors that :func:`settle` takes."""

    argv: list[str]
    """``PYTHON -m MODULE ARGUMENT...``"""
    env: dict[str, str]
    place: Place


class Word(Struct, frozen=True):
    """From the nursery."""

    what: Literal["ready", "started", "stale", "ended"]
    pid: int = 0
    code: int = 0
    """As os.waitstatus_to_exitcode() has it."""


def settle(place: Place, descriptors: Sequence[int]) -> dict[str, str]:
    """In a new process: move to *place*, with *descriptors* as 0, 1, 2 and then its sockets.

    Returns the settings that tell it of its sockets.  Raises: OSError.
    """
    if place.session:
        os.setsid()
    above = FIRST_FD + len(descriptors)
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in descriptors]
    for number, copy in enumerate(copies):
        os.dup2(copy, number)
        os.close(copy)
    if place.cgroup:
        Path(place.cgroup, "cgroup.procs").write_text("0")
    if place.netns:
        _enter(place.netns)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in CHANGED:
        signal.signal(number, signal.SIG_DFL)
    if not place.sockets:
        return {}
    return {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": str(len(place.sockets)),
        "LISTEN_FDNAMES": ":".join(place.sockets),
    }


def _enter(netns: str) -> None:
    fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {netns}")
    finally:
        os.close(fd)
