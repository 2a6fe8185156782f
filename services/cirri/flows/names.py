"""The names under which pods know addresses, from the DNS answers that they got.  Pure."""

from __future__ import annotations

from collections.abc import Iterable

from cirri.flows.lookup import Array, Lookup
from cirri.layout import address16
from cirri.model import L7Record
from cirri.model.request import LearntName

PER_ADDRESS = 8
"""Names of one address that a pod is said to know it by; the newest."""
MOST = 65536
"""(pod, address) pairs of the node that are kept, those that were used last."""


class PodNames:
    """(pod of this node, address) -> names, newest first."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, int], tuple[str, ...]] = {}
        self._lookup = Lookup({})
        self._stale = False
        self.texts: list[tuple[str, ...]] = []
        """What :meth:`find` speaks of, by index + 1."""

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, endpoint: int, name: str, addresses: Iterable[str]) -> None:
        """Pod *endpoint* was told that *name* has these *addresses*."""
        name = name.rstrip(".").lower()
        if not endpoint or not name:
            return
        for text in addresses:
            try:
                key = (address16(text), endpoint)
            except ValueError:
                continue
            had = self._known.pop(key, ())
            now = had if had[:1] == (name,) else (name, *(n for n in had if n != name))[:PER_ADDRESS]
            self._known[key] = now  # at the end: it is the newest
            self._stale |= now is not had
        while len(self._known) > MOST:
            del self._known[next(iter(self._known))]

    def answers(self, records: Iterable[L7Record]) -> None:
        """Learn from what pods were answered."""
        for one in records:
            if one.dns is not None and one.type == "response" and one.dns.ips:
                self.learn(one.endpoint, one.dns.query, one.dns.ips)

    def restore(self, names: Iterable[LearntName]) -> None:
        """Learn what the DNS proxy knows: what pods were told before this process was there."""
        for one in names:
            self.learn(one.endpoint, one.name, (address for address, _ in one.addresses))

    def forget(self, endpoints: frozenset[int]) -> None:
        """These pods are gone: others may get their numbers."""
        if gone := [key for key in self._known if key[1] in endpoints]:
            for key in gone:
                del self._known[key]
            self._stale = True

    def find(self, keys: Array) -> Array:
        """Of each (address, pod) index + 1 into :attr:`texts`; 0: no name is known."""
        if self._stale:
            self.texts = list(self._known.values())
            self._lookup = Lookup({key: number for number, key in enumerate(self._known, 1)})
            self._stale = False
        return self._lookup.find(keys)
