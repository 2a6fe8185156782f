"""Maglev tables: made once for all frontends that are alike, in the map before anyone is led to them."""

from __future__ import annotations

import hashlib
from base64 import b64decode
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cirri.layout import LB_MAGLEV, LbService, maglev_keys, maglev_parts
from cirri.loadbalancer import Backend, LoadBalancerConfig
from cirri.maglev import table
from cirri.maps import BpfError, open_pinned


@dataclass(frozen=True, slots=True)
class Table:
    """A table as an entry names it."""

    name: int
    """Digest of all that it is made from."""
    size: int
    """Slots."""
    seed: int
    """Of what connections hash to."""
    weights: tuple[tuple[str, int], ...] = field(compare=False, default=())
    """(name, weight) of each backend, in the order in which slots name them; not known of adopted ones."""
    text: str = field(compare=False, default="")
    """Seed of the backends' orders."""

    @classmethod
    def of(cls, backends: Sequence[Backend], config: LoadBalancerConfig) -> Self:
        """For *backends*, which are sorted by name."""
        weights = tuple((each.name, each.weight) for each in backends)
        text = repr((config.table_size, config.seed, weights))
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        seed = b64decode(config.seed)[4:8]
        return cls(
            int.from_bytes(digest, "big"),
            config.table_size,
            int.from_bytes(seed, "big"),
            weights,
            config.seed,
        )


class Tables:
    """The tables that entries lead to."""

    def __init__(self, bpffs: Path) -> None:
        self.parts = open_pinned(bpffs, LB_MAGLEV)
        self._uses: Counter[int] = Counter()
        self._there: dict[int, int] = {}
        """Their sizes, by name."""
        self._idle: set[int] = set()
        """Those to which perhaps no entry leads."""

    def adopt(self, heads: Iterable[LbService]) -> None:
        """Take over what *heads* lead to and is whole; clear away the rest."""
        sizes = {head.table: head.table_size for head in heads if head.table_size}
        self._uses = Counter(head.table for head in heads if head.table_size)
        found = set(self.parts.keys())
        keys = {name: maglev_keys(name, size) for name, size in sizes.items()}
        self._there = {name: size for name, size in sizes.items() if found.issuperset(keys[name])}
        self.parts.delete_many(found.difference(*(keys[name] for name in self._there)))

    def __contains__(self, name: int) -> bool:
        return name in self._there

    def ensure(self, wanted: Table) -> None:
        """Have a table in the map.

        Raises:
            MapFull: it does not fit; nothing of it stays.
        """
        if wanted.name in self._there:
            return
        slots = table(dict(wanted.weights), wanted.size, wanted.text)
        keys = maglev_keys(wanted.name, wanted.size)
        try:
            self.parts.put_many(zip(keys, maglev_parts(slots.tobytes()), strict=True))
        except BpfError:
            self.parts.delete_many(keys)
            raise
        self._there[wanted.name] = wanted.size
        self._idle.add(wanted.name)

    def switch(self, before: LbService | None, after: LbService | None) -> None:
        """An entry leads elsewhere."""
        if after is not None and after.table_size:
            self._uses[after.table] += 1
        if before is not None and before.table_size:
            self._uses[before.table] -= 1
            self._idle.add(before.table)

    def clear_away(self) -> None:
        """Remove the tables to which no entry leads."""
        gone = [name for name in self._idle if name in self._there and not self._uses[name]]
        self._idle.clear()
        self.parts.delete_many(key for name in gone for key in maglev_keys(name, self._there.pop(name)))
