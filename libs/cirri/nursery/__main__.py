"""``python -m cirri.nursery LABEL MODULE...``: the process that forks; its user is on descriptor 0."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pkgutil
import select
import signal
import site
import socket
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from cirri.nursery.place import Request, Word, settle

PACKET = 1 << 18
DESCRIPTORS = 64
PR_SET_NAME = 15
ARG_START, ARG_END = 45, 46
"""Fields of /proc/PID/stat, counted from the process's state."""
ALWAYS = ("uvloop", "cirri.runtime")
"""What every service imports, some of it late."""
Stamps = dict[str, tuple[int, int]]


def load(modules: Sequence[str]) -> None:
    """Import *modules*, packages with their modules but without the packages in them: they are seldom used.

    What cannot be imported says so when it is run.
    """
    for name in modules:
        with contextlib.suppress(Exception):
            module = import_module(name)
            for found in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{name}."):
                with contextlib.suppress(Exception):
                    import_module(found.name)


def stamps() -> Stamps:
    """What tells whether the code that has been imported is still that of the files."""
    files = [getattr(module, "__file__", None) for name, module in list(sys.modules.items()) if _ours(name)]
    return {file: _stamp(file) for file in (*files, *site.getsitepackages()) if file}


def _ours(name: str) -> bool:
    return name.startswith("cirri.")


def _stamp(file: str) -> tuple[int, int]:
    try:
        found = os.stat(file)
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


class Parent:
    """The nursery's side of the socket."""

    def __init__(self, user: socket.socket, loaded: Stamps) -> None:
        self._user, self._loaded = user, loaded
        self._wake, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._woken)

    def serve(self) -> tuple[Request, list[int]]:
        """Until its user is gone; returns in every child, with what it is to be."""
        poll = select.poll()
        poll.register(self._user, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        self._say(Word("ready"))
        while True:
            for word in _ended():
                self._say(word)
            if self._user.fileno() not in dict(poll.poll()):
                os.read(self._wake, 512)
                continue
            try:
                received = socket.recv_fds(self._user, PACKET, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
            except ConnectionResetError:
                sys.exit(0)
            packet, descriptors, *_ = received
            if not packet:
                sys.exit(0)
            if any(_stamp(file) != stamp for file, stamp in self._loaded.items()):
                self._say(Word("stale"))
                os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - itself, with the code of now
            request = msgspec.json.decode(packet, type=Request)
            if self._born():
                return request, descriptors
            for fd in descriptors:
                os.close(fd)

    def _born(self) -> bool:
        """Fork; whether this is the child.  It waits until its user knows of it, or ends."""
        told, tell = os.pipe2(os.O_CLOEXEC)
        if pid := os.fork():
            os.close(told)
            try:
                self._say(Word("started", pid))
                os.write(tell, b".")
            finally:
                os.close(tell)
            return False
        os.close(tell)
        if not os.read(told, 1):
            os._exit(1)
        os.close(told)
        signal.set_wakeup_fd(-1)
        os.close(self._wake)
        os.close(self._woken)
        self._user.detach()
        return True

    def _say(self, word: Word) -> None:
        try:
            self._user.send(msgspec.json.encode(word))
        except OSError:
            sys.exit(0)


def _ended() -> Iterator[Word]:
    """Children that have ended; each is told of before the kernel forgets it."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None:
            return
        code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        yield Word("ended", found.si_pid, code)
        os.waitpid(found.si_pid, 0)


def rename(argv: Sequence[str]) -> None:
    """Have lists of processes show *argv*, as if executed; zeros, which nobody shows, follow it."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[ARG_START]), int(fields[ARG_END])
    text = b"\0".join(os.fsencode(word) for word in argv) + b"\0"
    ctypes.memmove(start, text[: end - start].ljust(end - start, b"\0"), end - start)
    name = ctypes.create_string_buffer(f"cirri-{argv[2].rpartition('.')[2]}".encode()[:15])
    ctypes.CDLL(None).prctl(PR_SET_NAME, ctypes.c_ulong(ctypes.addressof(name)), 0, 0, 0)


def become(request: Request, descriptors: Sequence[int], added: dict[str, str]) -> Any:
    """In the child: move in; returns the ``main`` to be called."""
    own = settle(request.place, descriptors)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as Python begins
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for fd in descriptors:
        if fd >= 3 + len(request.place.sockets):
            os.close(fd)
    os.environ.clear()
    os.environ.update(added | request.env | own)
    rename(request.argv)
    name = request.argv[2]
    spec = find_spec(name)
    module = import_module(f"{name}.__main__" if spec and spec.submodule_search_locations else name)
    sys.argv = [str(module.__file__), *request.argv[3:]]
    sys.orig_argv = list(request.argv)
    gc.enable()
    return module.main


def main() -> None:
    """Be the nursery, and in each child a service."""
    os.closerange(3, 1 << 16)  # of whoever started it
    before = dict(os.environ)
    gc.disable()
    load((*ALWAYS, *sys.argv[2:]))
    added = {name: value for name, value in os.environ.items() if name not in before}
    gc.collect()
    gc.freeze()
    request, descriptors = Parent(socket.socket(fileno=0), stamps()).serve()
    try:
        service = become(request, descriptors, added)
    except OSError as error:
        sys.exit(f"cannot start {' '.join(request.argv[1:])}: {error}")
    service()


if __name__ == "__main__":
    main()
