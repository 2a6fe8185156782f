"""A file that is put aside when it is full, under the names that Hubble's writer gives."""

from __future__ import annotations

import gzip
import os
import shutil
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path


class RotatingFile:
    """Appends whole lines to *path*; blocks, so that it belongs into a thread of its own."""

    def __init__(
        self, path: Path, max_bytes: int, backups: int, *, compress: bool, mode: int = 0o600
    ) -> None:
        """*mode*: permissions of the files."""
        self._path, self._max, self._backups, self._compress = path, max_bytes, backups, compress
        self._mode = mode
        self._file: int | None = None
        self._size = 0
        self._last_ms = 0
        """Unix time in the name of the last one put aside."""

    def write(self, lines: bytes) -> None:
        """Append *lines*, all of them or none.  Raises: OSError; the next call begins anew."""
        try:
            if self._file is None:
                self._open()
            if self._size and self._size + len(lines) > self._max:
                self._rotate()
            self._append(lines)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Until the next :meth:`write`."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, self._mode)
        self._size = os.fstat(self._file).st_size

    def _append(self, lines: bytes) -> None:
        assert self._file is not None
        written = 0
        try:
            while written < len(lines):
                written += os.write(self._file, lines[written:])
        except OSError:
            with suppress(OSError):  # half a line would spoil the next one; devices keep none
                os.ftruncate(self._file, self._size)
            raise
        self._size += written

    def _rotate(self) -> None:
        self.close()
        aside = self._aside()
        self._path.rename(aside)
        self._open()
        if self._compress:
            self._pack(aside)
        kept = sorted(self._put_aside(), reverse=True)
        for old in kept[self._backups :]:
            old.unlink(missing_ok=True)

    def _aside(self) -> Path:
        """Where to put it: ``NAME-2026-11-23T15-04-05.000.EXT``, so that names are in order of time."""
        while True:
            self._last_ms = max(time.time_ns() // 1_000_000, self._last_ms + 1)
            when = datetime.fromtimestamp(self._last_ms // 1000, UTC).strftime("%Y-%m-%dT%H-%M-%S")
            name = f"{self._path.stem}-{when}.{self._last_ms % 1000:03}{self._path.suffix}"
            path = self._path.with_name(name)
            if not path.exists() and not path.with_name(f"{name}.gz").exists():
                return path

    def _put_aside(self) -> list[Path]:
        digit = "[0-9]"
        stamp = f"{digit * 4}-{digit * 2}-{digit * 2}T{digit * 2}-{digit * 2}-{digit * 2}.{digit * 3}"
        pattern = f"{_literal(self._path.stem)}-{stamp}{_literal(self._path.suffix)}"
        return [*self._path.parent.glob(pattern), *self._path.parent.glob(f"{pattern}.gz")]

    def _pack(self, path: Path) -> None:
        packed = path.with_name(f"{path.name}.gz")
        try:
            with path.open("rb") as plain, gzip.open(packed, "wb", compresslevel=6) as out:
                packed.chmod(self._mode)
                shutil.copyfileobj(plain, out)
        except OSError:
            packed.unlink(missing_ok=True)
            raise
        path.unlink()


def _literal(text: str) -> str:
    """*text* as a pattern that matches nothing else."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in text)
