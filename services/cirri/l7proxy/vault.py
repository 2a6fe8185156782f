"""The Secrets that rules name, kept beside the sockets: a restart needs no bus.  They end with the host's
uptime."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

Content = dict[str, dict[str, bytes]]


class Vault:
    """A file that only root reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: Content | None = None

    def read(self) -> Content:
        """What was kept; {} if nothing was, or it cannot be read."""
        try:
            self._kept = msgspec.msgpack.decode(self.path.read_bytes(), type=Content)
        except (OSError, msgspec.DecodeError):
            return {}
        return self._kept

    def keep(self, content: Content) -> None:
        """Replace what is kept.  Raises: OSError."""
        if content == self._kept:
            return
        draft = self.path.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(msgspec.msgpack.encode(content))
        draft.rename(self.path)
        self._kept = content
