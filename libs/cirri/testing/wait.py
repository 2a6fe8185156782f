"""Waiting for a condition instead of for time to pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def eventually(
    holds: Callable[[], object], *, within_s: float = 30.0, what: str = "the condition"
) -> None:
    """Return when *holds* is true.  Raises: AssertionError after *within_s*."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"{what} does not hold after {within_s} s"
        await asyncio.sleep(0.005)
