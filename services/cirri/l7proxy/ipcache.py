"""Whose an address is, as the kernel has it: for records."""

from __future__ import annotations

import ipaddress
import time
from pathlib import Path

from cirri.errors import CirriError
from cirri.layout import IPCACHE, IpcacheKey, IpcacheValue
from cirri.maps import BpfMap, open_pinned

FRESH_S = 1.0
"""How old an answer may be."""
MOST = 4096


class Ipcache:
    """Map ``cirri_ipcache``, whenever it is there."""

    def __init__(self, bpffs: Path) -> None:
        self._bpffs = bpffs
        self._map: BpfMap[IpcacheKey, IpcacheValue] | None = None
        self._known: dict[str, int] = {}
        self._until = 0.0

    def identity(self, address: str) -> int:
        """The identity of *address*; 0: not known."""
        now = time.monotonic()
        if now > self._until or len(self._known) > MOST:
            self._known.clear()
            self._until = now + FRESH_S
        if address not in self._known:
            self._known[address] = self._look_up(address)
        return self._known[address]

    def _look_up(self, address: str) -> int:
        try:
            if self._map is None:
                self._map = open_pinned(self._bpffs, IPCACHE)
            found = self._map.get(IpcacheKey.of(ipaddress.ip_network(address)))
        except (CirriError, ValueError):
            return 0
        return found.identity if found else 0
