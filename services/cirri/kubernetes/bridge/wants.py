"""What is to be written to the API server: the newest of each object, seldom, again after a failure.  Pure.

A token bucket bounds the rate; whoever wants something of an object that waits already replaces it, so a
storm of changes costs one write for each object.  After a failure everything pauses, longer each time and
never less than the server asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Literal, NamedTuple

RATE, BURST = 50.0, 100.0
"""Writes a second, and how many at once after a quiet time."""
FIRST_S, LONGEST_S = 0.2, 30.0
Method = Literal["PATCH", "POST", "DELETE"]


class Want(NamedTuple):
    """One write."""

    method: Method
    path: str
    body: bytes = b""
    content_type: str = "application/apply-patch+yaml"

    @property
    def digest(self) -> bytes:
        """Tells it from others."""
        words = (self.method.encode(), self.content_type.encode(), self.body)
        return blake2b(b"\0".join(words), digest_size=12).digest()


class Wants:
    """The writes that wait, by the path of what they are for."""

    def __init__(self, *, chance: Callable[[], float], rate: float = RATE, burst: float = BURST) -> None:
        self._chance, self._rate, self._burst = chance, rate, burst
        self._due: dict[str, Want] = {}
        self._done: dict[str, bytes] = {}
        """What the server has taken last."""
        self._tokens, self._at = burst, 0.0
        self._failures = 0
        self._not_before = 0.0
        self.coalesced = 0
        """Writes that a newer one has replaced before they were made."""

    def __len__(self) -> int:
        return len(self._due)

    def want(self, want: Want, *, again: bool = False) -> None:
        """Make *want* so; nothing if the server has it (by our own writes), but for *again*."""
        if not again and self._done.get(want.path) == want.digest:
            self._due.pop(want.path, None)
            return
        self.coalesced += want.path in self._due
        self._due[want.path] = want

    def next(self, now: float) -> Want | float:
        """The write to make at *now*, or how long to wait for one; infinite: for a :meth:`want`."""
        if not self._due:
            return float("inf")
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        pause = max(self._not_before - now, (1 - self._tokens) / self._rate)
        if pause > 1e-6:  # what is less comes of rounding, and would be waited for for ever
            return pause
        self._tokens -= 1
        return self._due.pop(next(iter(self._due)))

    def succeeded(self, want: Want) -> None:
        """The server has taken it."""
        self._failures = 0
        if want.method == "DELETE":
            self._done.pop(want.path, None)
        else:
            self._done[want.path] = want.digest

    def refused(self, want: Want) -> None:
        """It makes no sense to ask for it again."""
        self._done.pop(want.path, None)

    def failed(self, want: Want, now: float, retry_after_s: float = 0.0) -> None:
        """It is asked for again, unless something newer is wanted."""
        self._due.setdefault(want.path, want)
        own = min(LONGEST_S, FIRST_S * 2**self._failures) * (1 + self._chance()) / 2
        self._not_before = now + max(own, retry_after_s)
        self._failures = min(self._failures + 1, 16)
