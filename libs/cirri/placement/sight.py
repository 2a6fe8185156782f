"""Who lives, as beats tell; and whether this node sees beats at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cirri.model import Announcer

REGAIN_S = 2.0
"""After a time without sight whoever lived before counts as living for so long: others may see later."""


@dataclass(slots=True)
class _Seen:
    beat: int
    until: float
    """Lives until then, by our clock, unless there is another beat."""


class Sight:
    """What one node knows of the others' lives.  Times: seconds of one monotonic clock."""

    def __init__(self, node: str, *, duration_s: float, renew_s: float) -> None:
        self.node, self.duration_s, self.renew_s = node, duration_s, renew_s
        self._seen: dict[str, _Seen] = {}
        self._sent: dict[int, float] = {}
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
                    for each in self._seen.values():
                        each.until = max(each.until, now + REGAIN_S) if each.until else 0.0
        before = self._seen.get(record.node)
        if before is not None and before.beat == record.beat:
            return False
        known = before is not None and before.until > now
        self._seen[record.node] = _Seen(record.beat, now + max(self.duration_s, record.leave_s))
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
        return frozenset(node for node, seen in self._seen.items() if seen.until > now)

    def bury(self, now: float) -> None:
        """Those that died are dead: to be called while we see."""
        for seen in self._seen.values():
            if seen.until <= now:
                seen.until = 0.0

    def next_s(self, now: float) -> float:
        """Seconds until somebody may turn out to be dead."""
        ends = [seen.until - now for seen in self._seen.values() if seen.until > now]
        return min(ends, default=self.duration_s)

    def established(self, beats: int, others: Iterable[Announcer], now: float) -> bool:
        """Whether a node of *others* lives that has been beating for more than *beats*."""
        alive = self.alive(now)
        return any(each.node in alive and each.beat > beats for each in others if each.node != self.node)
