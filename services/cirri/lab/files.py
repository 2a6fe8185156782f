"""Files that are read while they are written."""

from __future__ import annotations

import os
from pathlib import Path


def make_folder(path: Path) -> None:
    """Make *path* and what is above it, also while another lab's end removes empty folders."""
    for _ in range(100):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:
            continue
        return
    path.mkdir(parents=True, exist_ok=True)


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace the file at once: readers see the old content or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    draft.rename(path)
