"""Wait until no program runs any more that may have read a map before."""

from __future__ import annotations

import ctypes
import platform
import time

_MEMBARRIER = {"x86_64": 324, "aarch64": 283}
_GLOBAL = 1
"""MEMBARRIER_CMD_GLOBAL: synchronize_rcu(), under whose lock programs run; membarrier(2)."""
LONG_S = 0.1
"""Where the call is refused (on CPUs without a tick): longer than any program runs."""


def programs_ended() -> None:
    """Return when every program that ran at the time of the call has ended.  Blocks some 10 ms."""
    number = _MEMBARRIER.get(platform.machine())
    if number is None or ctypes.CDLL(None, use_errno=True).syscall(number, _GLOBAL, 0, 0):
        time.sleep(LONG_S)
