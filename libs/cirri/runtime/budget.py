"""How much of something that comes from outside is dealt with, over time."""

from __future__ import annotations

import time


class Budget:
    """*rate* units a second, of which two seconds' worth may come at once."""

    def __init__(self, rate: int) -> None:
        self._rate, self._left, self._at = rate, 2.0 * rate, time.monotonic()

    def spend(self, units: int) -> bool:
        """Whether there is room for *units* now; if so they are spent."""
        now = time.monotonic()
        self._left = min(2.0 * self._rate, self._left + (now - self._at) * self._rate)
        self._at = now
        if units > self._left:
            return False
        self._left -= units
        return True
