"""The side of the service manager."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence

import msgspec

from cirri.nursery.place import Place, Request, Word

ANSWER_S = 5.0
"""A nursery that takes longer to answer is ended."""
PACKET = 1 << 10


def nursable(argv: Sequence[str]) -> str:
    """The module that *argv* runs and that a nursery can run instead; "" if it is another program."""
    ours = len(argv) > 2 and argv[0] == sys.executable and argv[1] == "-m" and argv[2].startswith("cirri.")
    return argv[2] if ours else ""


class Nursery:
    """One nursery process, or none: it may die at any time, and be opened again."""

    def __init__(self, label: str, modules: Sequence[str]) -> None:
        """*label* is seen in lists of processes; *modules* are imported, packages with their modules."""
        self._argv = [sys.executable, "-m", "cirri.nursery", label, *dict.fromkeys(modules)]
        self._sock: socket.socket | None = None
        self._heard: list[Word] = []
        self.pid = 0
        """Of the process that was opened last: its user's child."""
        self.ready = False
        """Whether it has imported everything, as far as is known."""

    def open(self) -> int:
        """Start the process; its pid."""
        self.close()
        self._sock, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self.pid = os.posix_spawn(
                self._argv[0],
                self._argv,
                # Nothing of numpy's may compute in threads: they would be lost in children.
                os.environ | {"OPENBLAS_NUM_THREADS": "1"},
                file_actions=[(os.POSIX_SPAWN_DUP2, other.fileno(), 0)],
                setsigmask=(),
                setsigdef=(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE),
            )
        return self.pid

    def fileno(self) -> int:
        """What becomes readable when there are words; -1 while it is not open."""
        return self._sock.fileno() if self._sock else -1

    @property
    def heard(self) -> bool:
        """Whether :meth:`words` has some without looking."""
        return bool(self._heard)

    def start(
        self, argv: Sequence[str], env: Mapping[str, str], place: Place, descriptors: Sequence[int]
    ) -> int:
        """Run *argv* with exactly *env*, as :func:`settle` says; its pid, 0 if it could not be had.

        The process is the nursery's child: its end is told by :meth:`words`.
        """
        if not self.ready or self._sock is None:
            return 0
        request = msgspec.json.encode(Request(list(argv), dict(env), place))
        with contextlib.suppress(OSError):
            socket.send_fds(self._sock, [request], list(descriptors))
            deadline = time.monotonic() + ANSWER_S
            while True:
                said = self._next(deadline - time.monotonic())
                if said is None:
                    break
                if said.what == "started":
                    return said.pid
                if said.what == "stale":
                    self.ready = False
                    return 0
                self._heard.append(said)
        return self._give_up()

    def words(self) -> list[Word]:
        """What it has said since the last look.  When it is gone it is not open any more."""
        heard, self._heard = self._heard, []
        with contextlib.suppress(OSError):
            while self._sock is not None and (said := self._next(0)):
                self.ready |= said.what == "ready"
                heard.append(said)
        return heard

    def wait_ready(self, seconds: float) -> bool:
        """Wait until it has imported everything; whether it has."""
        deadline = time.monotonic() + seconds
        while not self.ready and self._sock is not None and (left := deadline - time.monotonic()) > 0:
            select.select([self._sock], [], [], left)
            self._heard = self.words()
        return self.ready

    def close(self) -> None:
        """Let it end; its children go on."""
        self.ready = False
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _next(self, seconds: float) -> Word | None:
        """Its next word within *seconds*; None if there is none.  Raises: OSError."""
        assert self._sock is not None
        if not select.select([self._sock], [], [], max(0.0, seconds))[0]:
            return None
        packet = self._sock.recv(PACKET)
        if not packet:
            self.close()
            return None
        try:
            return msgspec.json.decode(packet, type=Word)
        except msgspec.MsgspecError:  # of another version: begin anew
            self._end()
            self.close()
            return None

    def _give_up(self) -> int:
        """End a nursery that does not answer; a child that it has just told of lives all the same."""
        self._end()
        started = 0
        with contextlib.suppress(OSError):
            while self._sock is not None and (said := self._next(ANSWER_S)):
                started = said.pid if said.what == "started" else started
                self._heard.append(said)
        self.close()
        return started

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
