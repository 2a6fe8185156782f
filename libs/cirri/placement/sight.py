"""Who lives, as beats and the answers of kernels tell; and whether this node sees beats at all.

A node whose beats are late is asked, on the segment, for an address that it holds.  Its kernel answers
without any process, so one that only lacks CPU time is not taken for dead; one that is dead does not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cirri.model import Announcer

REGAIN_S = 2.0
"""After a time without sight whoever lived before counts as living for so long: others may see later."""
LATE = 2 / 3
"""A node whose beats have not come for so much of the duration is asked."""
ASKS, HEED_S = 3, 0.02
"""How often in vain it was asked that is dead, and how long after the last time."""
WITNESS_S = 0.15
"""How long a kernel's answer counts."""
GRACE_S = 10.0
"""How long after the last beat it does: without processes nobody keeps up what a kernel does."""


@dataclass(slots=True)
class _Seen:
    beat: int
    at: float
    """When that beat was heard, by our clock."""
    until: float
    """Lives until then, unless there is another sign of life; 0: it is dead."""
    asked: int = 0
    """How often in vain."""
    asked_s: float = 0.0
    """When, for the last time that counts."""


class Sight:
    """What one node knows of the others' lives.  Times: seconds of one monotonic clock."""

    def __init__(self, node: str, *, duration_s: float, renew_s: float) -> None:
        self.node, self.duration_s, self.renew_s = node, duration_s, renew_s
        self._seen: dict[str, _Seen] = {}
        self._sent: dict[int, float] = {}
        self.askable: Callable[[str], bool] = lambda _: False
        """Whether a node's kernel would answer for something."""
        self._echo_s: float | None = None
        """When the newest own beat that came back was sent; None: none since we began to beat."""

    def heard(self, record: Announcer, now: float) -> bool:
        """Take note of *record*; whether its node was not known to live."""
        if record.node == self.node:
            sent = self._sent.pop(record.beat, None)
            if sent is not None:
                regained = self.blind(now)
                self._echo_s = sent
                self._sent = {beat: at for beat, at in self._sent.items() if at > sent}
                if regained:
                    for name, each in self._seen.items():
                        wait_s = self.duration_s if self.askable(name) else REGAIN_S
                        each.at, each.asked = now, 0
                        each.until = max(each.until, now + wait_s) if each.until else 0.0
        before = self._seen.get(record.node)
        if before is not None and before.beat == record.beat:
            return False
        known = before is not None and self._lives(record.node, before, now)
        self._seen[record.node] = _Seen(record.beat, now, now + max(self.duration_s, record.leave_s))
        return not known

    def sends(self, beat: int, now: float) -> None:
        """Our own *beat* goes out."""
        if self._echo_s is None:
            self._echo_s = now
        self._sent[beat] = now

    def rests(self) -> None:
        """We send no beats: nobody counts on us, and we cannot tell whether we see."""
        self._sent.clear()
        self._echo_s = None

    def gone(self, node: str) -> None:
        """*node*'s record was removed."""
        self._seen.pop(node, None)

    def blind(self, now: float) -> bool:
        """Whether our own beats do not come back: then silence of others tells nothing."""
        return self._echo_s is not None and now - self._echo_s > self.renew_s

    def alive(self, now: float) -> frozenset[str]:
        """Who lives.  Means nothing while :meth:`blind`."""
        return frozenset(node for node, seen in self._seen.items() if self._lives(node, seen, now))

    def late(self, now: float) -> list[str]:
        """Whom to ask now."""
        return [node for node in self._awaited() if now - self._seen[node].at >= self._late_s]

    def late_s(self, now: float) -> float:
        """Seconds until somebody may have to be asked."""
        ends = [self._seen[node].at + self._late_s - now for node in self._awaited()]
        return max(0.0, min(ends, default=self._late_s))

    def asks(self, node: str, now: float) -> None:
        """*node* is asked for an address that it holds."""
        seen = self._seen[node]
        if seen.asked < ASKS:
            seen.asked, seen.asked_s = seen.asked + 1, now

    def answers(self, node: str, now: float) -> None:
        """Its kernel did answer."""
        seen = self._seen.get(node)
        if seen is not None and seen.until:
            seen.asked, seen.until = 0, max(seen.until, min(now + WITNESS_S, seen.at + GRACE_S))

    def bury(self, now: float) -> None:
        """Those that died are dead: to be called while we see."""
        for node, seen in self._seen.items():
            if not self._lives(node, seen, now):
                seen.until = 0.0

    def next_s(self, now: float) -> float:
        """Seconds until somebody may turn out to be dead."""
        ends = [
            max(seen.until, seen.asked_s + HEED_S) - now
            for node, seen in self._seen.items()
            if self._lives(node, seen, now)
        ]
        return max(0.0, min(ends, default=self.duration_s))

    def established(self, beats: int, others: Iterable[Announcer], now: float) -> bool:
        """Whether a node of *others* lives that has been beating for more than *beats*."""
        alive = self.alive(now)
        return any(each.node in alive and each.beat > beats for each in others if each.node != self.node)

    @property
    def _late_s(self) -> float:
        return LATE * self.duration_s

    def _awaited(self) -> list[str]:
        """Those of whom another beat is expected, and whose kernel can be asked."""
        others = ((node, seen) for node, seen in self._seen.items() if node != self.node)
        return [node for node, seen in others if seen.until and self.askable(node)]

    def _lives(self, node: str, seen: _Seen, now: float) -> bool:
        if seen.until > now or not seen.until:
            return seen.until > now
        if node == self.node or not self.askable(node) or now >= seen.at + GRACE_S:
            return False
        return seen.asked < ASKS or now < seen.asked_s + HEED_S
