"""Lines into a file by a thread of its own, which may be late or fail: what it cannot write is counted and
said, and nobody waits for it."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from cirri.history.rotating import RotatingFile
from cirri.model.flowexport import STDOUT

QUEUE_COUNT, QUEUE_ITEMS = 1 << 16, 1 << 12
"""What waits for the thread, and items that these are in; more is lost."""
CHUNK_LINES = 256
"""Written at once, or lost at once."""
SAY_S = 10.0
"""Between two words about the same trouble."""

Say = Callable[..., None]
Line = tuple[bytes, int]
"""(it, with its end; of how many things it tells)."""
T = TypeVar("T")


class Sink(NamedTuple):
    """Where lines go."""

    where: str
    write: Callable[[bytes], Any]
    """Raises: OSError."""
    close: Callable[[], None]


class LineWriter(Generic[T]):
    """Writes what *lines* makes of the items that it is given."""

    def __init__(
        self,
        what: str,
        sink: Sink,
        lines: Callable[[T], Iterable[Line]],
        say: Say,
        before: Sequence[LineWriter[T]] = (),
    ) -> None:
        """*what*: "flows"; *say* is called by any thread.

        *before*: who writes the same file, and is waited for.
        """
        self._what, self._sink, self._lines, self._say, self._before = what, sink, lines, say, before
        self.written = 0
        self.lost = {"queue": 0, "file": 0}
        """``queue``: too much waited; ``file``: see the log."""
        self._waiting: deque[tuple[T, int]] = deque()
        self._count = 0
        self._turn = threading.Condition()
        self._ending = False
        self._said = 0.0
        self._thread = threading.Thread(target=self._run, name=f"export-{what}", daemon=True)
        self._thread.start()

    def put(self, item: T, count: int) -> None:
        """Have *item* written, which tells of *count* things."""
        with self._turn:
            if self._ending:
                return
            if self._count + count > QUEUE_COUNT or len(self._waiting) >= QUEUE_ITEMS:
                self.lost["queue"] += count
                self._complain(f"{self._what} are exported too slowly", lost=self.lost["queue"])
                return
            self._waiting.append((item, count))
            self._count += count
            self._turn.notify()

    @property
    def alive(self) -> bool:
        """Whether its thread still writes."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Return when all has been written."""
        self._thread.join()

    def close_soon(self) -> None:
        """End when all that is waiting has been written."""
        with self._turn:
            self._ending = True
            self._turn.notify()

    def give_up(self, within_s: float) -> None:
        """What is not written by then is lost and counted."""
        self._thread.join(within_s)
        with self._turn:
            self.lost["queue"] += self._count
            self._waiting.clear()
            self._count = 0

    def _run(self) -> None:
        for other in self._before:
            other.join()
        while (item := self._next()) is not None:
            lines = iter(self._lines(item))
            while chunk := list(islice(lines, CHUNK_LINES)):
                count = sum(each for _, each in chunk)
                try:
                    self._sink.write(b"".join(line for line, _ in chunk))
                    self.written += count
                except OSError as error:
                    self.lost["file"] += count
                    self._complain(
                        f"{self._what} cannot be exported",
                        error=f"{self._sink.where}: {error.strerror or error}",
                    )
        self._sink.close()

    def _next(self) -> T | None:
        with self._turn:
            while not self._waiting and not self._ending:
                self._turn.wait()
            if not self._waiting:
                return None
            item, count = self._waiting.popleft()
            self._count -= count
            return item

    def _complain(self, event: str, **said: Any) -> None:
        now = time.monotonic()
        if now - self._said >= SAY_S:
            self._said = now
            self._say(event, **said)


def sink(path: str, max_bytes: int, backups: int, *, compress: bool, mode: int = 0o600) -> Sink:
    """Where lines go: a file that is put aside when it is full, or :data:`STDOUT`."""
    if path == STDOUT:
        return Sink(path, _to_stdout, lambda: None)
    file = RotatingFile(Path(path), max_bytes, backups, compress=compress, mode=mode)
    return Sink(path, file.write, file.close)


def _to_stdout(lines: bytes) -> None:
    sys.stdout.buffer.write(lines)
    sys.stdout.buffer.flush()
