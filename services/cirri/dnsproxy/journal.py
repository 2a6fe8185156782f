"""The facts' file: records that both instances of a node append to, and read from each other.

Each record is four bytes of length and MessagePack.  Who appends holds a lock and has read what is there, so
that records are in one order for everybody; a record cut short by a kill is cut off by whoever appends next.
Nobody waits long for the lock: whoever holds it and stands still does not hold up answers.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cirri.dnsproxy.facts import Record

MOST_BYTES = 1 << 20
"""Of one record."""
WAIT_S, AGAIN_S = 0.1, 1.0
"""How long one waits for the lock, and how long one does not wait after that was in vain."""
_STEP_S = 0.0001

_decoder = msgspec.msgpack.Decoder(Record)
_encoder = msgspec.msgpack.Encoder()


class Journal:
    """One instance's view of the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bad = 0
        """Times that the file's end had to be cut off."""
        self.held = False
        """Whether the lock is ours now."""
        self._fd, self._at = -1, 0
        self._patient_from = 0.0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._guard = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._open()

    def close(self) -> None:
        """Give the file back."""
        os.close(self._fd)
        os.close(self._guard)

    @property
    def size(self) -> int:
        """Bytes read so far."""
        return self._at

    def changed(self) -> bool:
        """Whether somebody has appended."""
        return os.fstat(self._fd).st_size != self._at

    def news(self) -> list[Record]:
        """Records that were not read yet; all of them if the file was written anew."""
        found: list[Record] = []
        while True:
            found += self._read()
            if os.fstat(self._fd).st_nlink:
                return found
            os.close(self._fd)
            self._open()

    @contextmanager
    def locked(self) -> Iterator[list[Record]]:
        """Hold the lock, if it can be had soon; gives what was not read yet."""
        held = self.held = self._lock()
        try:
            found = self.news()
            if held and os.fstat(self._fd).st_size > self._at:
                os.ftruncate(self._fd, self._at)
                self.bad += 1
            yield found
        finally:
            self.held = False
            if held:
                fcntl.flock(self._guard, fcntl.LOCK_UN)

    def append(self, records: Iterable[Record]) -> None:
        """Add *records*, within :meth:`locked`.  Without the lock they are read again, among others'."""
        data = _framed(records)
        if data and os.write(self._fd, data) == len(data) and self.held:
            self._at += len(data)

    def replace(self, records: Iterable[Record]) -> None:
        """Have the file hold *records* alone; the lock is held."""
        draft = self.path.with_suffix(".draft")
        draft.write_bytes(_framed(records))
        draft.rename(self.path)
        os.close(self._fd)
        self._open()
        self._at = os.fstat(self._fd).st_size

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._at = 0

    def _lock(self) -> bool:
        patient = time.monotonic() >= self._patient_from
        until = time.monotonic() + WAIT_S
        while True:
            try:
                fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if not patient or time.monotonic() > until:
                    self._patient_from = time.monotonic() + AGAIN_S
                    return False
                time.sleep(_STEP_S)

    def _read(self) -> list[Record]:
        found: list[Record] = []
        data = b""
        while piece := os.pread(self._fd, 1 << 20, self._at + len(data)):
            data += piece
        at = 0
        while at + 4 <= len(data):
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            if end - at > MOST_BYTES or end > len(data):
                break
            try:
                found.append(_decoder.decode(data[at + 4 : end]))
            except (msgspec.DecodeError, UnicodeError):
                break
            at = end
        self._at += at
        return found


def _framed(records: Iterable[Record]) -> bytes:
    parts = []
    for record in records:
        data = _encoder.encode(record)
        parts += [len(data).to_bytes(4, "big"), data]
    return b"".join(parts)
