"""Which entries of an identity lead to a proxy.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from cirri.engine.entries import EntryKey
from cirri.engine.redirects import Wanted


class Led:
    """The redirects of one identity, peer by peer: a change of some peers touches theirs alone."""

    def __init__(self) -> None:
        self._of: dict[int, dict[EntryKey, Wanted]] = {}
        self._uses: Counter[Wanted] = Counter()

    def __bool__(self) -> bool:
        return bool(self._uses)

    @property
    def wanted(self) -> Collection[Wanted]:
        """Everything that some entry leads to."""
        return self._uses.keys()

    def of(self, peer: int) -> Iterable[Wanted]:
        """Where entries of *peer* lead."""
        return self._of.get(peer, {}).values()

    def take(
        self, redirects: Mapping[EntryKey, Wanted], only: Iterable[int] | None = None
    ) -> dict[Wanted, list[EntryKey]]:
        """Have *redirects*, of the peers *only* or of all; to what no entry leads any more, and which did."""
        peers = list(self._of) if only is None else [peer for peer in only if peer in self._of]
        before = [item for peer in peers for item in self._of.pop(peer).items()]
        self._uses.subtract(to for _, to in before)
        self._uses.update(redirects.values())
        for key, to in redirects.items():
            self._of.setdefault(key.identity, {})[key] = to
        lost: dict[Wanted, list[EntryKey]] = {}
        for key, to in before:
            if not self._uses[to]:
                lost.setdefault(to, []).append(key)
        for to in lost:
            del self._uses[to]
        return lost
