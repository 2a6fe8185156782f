"""The maps of Services: what programs find under ``cirri_lb_*``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cirri.datapath.frontends import Frontends, Ways
from cirri.datapath.tables import Table, Tables
from cirri.layout import (
    FRONTEND_DSR,
    LB_ALIVE,
    LB_BACKENDS,
    LB_FRONTENDS,
    LB_RANGES,
    LB_SERVICES,
    LbAliveKey,
    LbBackend,
    LbBackendKey,
    LbFrontend,
    LbRangeKey,
    LbScope,
    LbService,
    LbServiceKey,
    LbState,
    network_of,
)
from cirri.maps import MapFull, open_pinned

AT_ONCE = 4096
"""Frontends that are written in one go; if not all fit, one by one."""


class Parts(NamedTuple):
    """What belongs to a frontend beside its entry and its backends' slots."""

    alive: dict[LbAliveKey, int]
    ranges: dict[LbRangeKey, int]
    frontends: dict[int, LbFrontend]


NOTHING = Parts({}, {}, {})


class Old(NamedTuple):
    """A frontend as programs know it before a change."""

    head: LbService
    parts: Parts


class Fresh(NamedTuple):
    """A frontend that is about to be written."""

    key: LbServiceKey
    ways: Ways
    head: LbService
    parts: Parts


class Services:
    """What programs find of Services.

    A frontend's backends are written under a fresh id before its entry is switched to them, so that a
    client meets the old list or the new one.  The frontend's number stays as long as it is there.
    """

    def __init__(self, bpffs: Path, backends_left: Callable[[], None], *, pods_packets: bool = False) -> None:
        self.services = open_pinned(bpffs, LB_SERVICES)
        self.backends = open_pinned(bpffs, LB_BACKENDS)
        self.alive = open_pinned(bpffs, LB_ALIVE)
        self.ranges = open_pinned(bpffs, LB_RANGES)
        self.frontends = open_pinned(bpffs, LB_FRONTENDS)
        self.tables = Tables(bpffs)
        self.backends_left = backends_left
        """To be called when a backend takes no more connections, or is gone."""
        self.pods_packets = pods_packets
        """Packets meet frontends of the inside as well, which then need what those of the outside need."""
        self._heads = self.services.to_dict()
        self.copy: dict[LbServiceKey, Ways] = {}
        self.fault = ""
        self._without: dict[LbServiceKey, str] = {}
        """Frontends for whose table there was no room, and the map's words."""
        self._adopt()
        self._ids = {head.id for head in self._heads.values()}
        self._numbers = {head.frontend for head in self._heads.values()}
        self._last_id, self._last_frontend = max(self._ids, default=0), max(self._numbers, default=0)

    def apply(self, changes: Mapping[LbServiceKey, Ways | None]) -> None:
        """Set frontends, or (where the value is None) remove them."""
        drop = [key for key, value in changes.items() if value is None and key in self._heads]
        put = [(k, v) for k, v in changes.items() if v is not None and self.copy.get(k) != v]
        old = {
            key: Old(head, self._parts(key, head, self.copy.get(key)))
            for key in (*drop, *(k for k, _ in put))
            if (head := self._heads.get(key))
        }
        self.services.delete_many(drop)
        for key in drop:
            self.tables.switch(self._heads.pop(key), None)
            self.copy.pop(key, None)
            self._without.pop(key, None)
        now = dict.fromkeys(drop, NOTHING)
        try:
            for at in range(0, len(put), AT_ONCE):
                self._put_all(self._fresh(put[at : at + AT_ONCE]), old, now)
            self.fault = next(iter(self._without.values()), "")
        except MapFull as error:
            self.fault = str(error)
        self._clear_away([(each, now[key]) for key, each in old.items() if key in now])
        self._numbers.difference_update(old[key].head.frontend for key in drop)

    def meet_pods_packets(self, on: bool) -> None:
        """Write what programs need of frontends of the inside, or take it away."""
        if on == self.pods_packets:
            return
        was = self._inside()
        self.pods_packets = on
        now = self._inside()
        try:
            self.alive.put_many(now.alive.items())
            self.frontends.put_many(now.frontends.items())
        except MapFull as error:
            self.fault = str(error)
        self.alive.delete_many(was.alive.keys() - now.alive.keys())
        self.frontends.delete_many(was.frontends.keys() - now.frontends.keys())

    def _inside(self) -> Parts:
        """What belongs to all frontends of the inside."""
        heads = ((k, h) for k, h in self._heads.items() if k.scope == LbScope.INTERNAL)
        found = Parts({}, {}, {})
        for key, head in heads:
            parts = self._parts(key, head, self.copy.get(key))
            found.alive.update(parts.alive)
            found.frontends.update(parts.frontends)
        return found

    def _put_all(
        self, fresh: Sequence[Fresh], old: Mapping[LbServiceKey, Old], now: dict[LbServiceKey, Parts]
    ) -> None:
        """Write frontends, and note in *now* what belongs to them.

        Raises:
            MapFull: not all fit, and only those before the first that did not are there.
        """
        try:
            self._write(fresh)
        except MapFull:
            self._undo(fresh, old)
            if len(fresh) == 1:
                raise
            for each in fresh:
                self._put_all([each], old, now)
            return
        try:
            self.services.put_many((each.key, each.head) for each in fresh)
        except MapFull as error:
            self._switched(fresh[: error.stored], now)
            self._undo(fresh[error.stored :], old)
            raise
        self._switched(fresh, now)

    def _fresh(self, put: Sequence[tuple[LbServiceKey, Ways]]) -> list[Fresh]:
        ids = _free(self._last_id, self._ids)
        numbers = _free(self._last_frontend, self._numbers)
        fresh = []
        for key, wanted in put:
            ways = self._tabled(key, wanted) if wanted.table is not None or self._without else wanted
            self._last_id = next(ids)
            if (before := self._heads.get(key)) is not None:
                number = before.frontend
            else:
                number = self._last_frontend = next(numbers)
            head = _head(ways, self._last_id, number)
            fresh.append(Fresh(key, ways, head, self._parts(key, head, ways)))
        return fresh

    def _write(self, fresh: Sequence[Fresh]) -> None:
        """All that frontends are about to lead to."""
        self.backends.put_many(
            (LbBackendKey(service=each.head.id, slot=slot), backend)
            for each in fresh
            for slot, backend in enumerate(each.ways.backends)
        )
        if parts := [each.parts for each in fresh if each.parts is not NOTHING]:
            self.alive.put_many(item for one in parts for item in one.alive.items())
            self.ranges.put_many(item for one in parts for item in one.ranges.items())
            self.frontends.put_many(item for one in parts for item in one.frontends.items())

    def _switched(self, fresh: Iterable[Fresh], now: dict[LbServiceKey, Parts]) -> None:
        """Note that programs know these."""
        for key, ways, head, parts in fresh:
            now[key] = parts
            before = self._heads.get(key)
            if before is not None or head.table_size:
                self.tables.switch(before, head)
            self._ids.add(head.id)
            self._numbers.add(head.frontend)
            self._heads[key], self.copy[key] = head, ways

    def _undo(self, fresh: Iterable[Fresh], old: Mapping[LbServiceKey, Old]) -> None:
        """Take away what a write that did not fit has left."""
        for each in fresh:
            before = old[each.key].parts if each.key in old else NOTHING
            self.backends.delete_many(_slots(each.head))
            self.alive.delete_many(each.parts.alive.keys() - before.alive.keys())
            self.ranges.delete_many(each.parts.ranges.keys() - before.ranges.keys())
            self.frontends.delete_many(each.parts.frontends.keys() - before.frontends.keys())

    def _tabled(self, key: LbServiceKey, ways: Ways) -> Ways:
        """*ways* once their table is there; if there is no room for it they do without, which is no reason to
        serve nobody."""
        self._without.pop(key, None)
        if ways.table is None:
            return ways
        try:
            self.tables.ensure(ways.table)
        except MapFull as error:
            self._without[key] = str(error)
            return ways._replace(table=None)
        return ways

    def _clear_away(self, changed: Sequence[tuple[Old, Parts]]) -> None:
        """Remove what frontends had and have no more."""
        gone, parts = [old.head for old, _ in changed], [(old.parts, now) for old, now in changed]
        self.backends.delete_many(slot for head in gone for slot in _slots(head))
        self.alive.delete_many(k for old, now in parts for k in old.alive.keys() - now.alive.keys())
        self.ranges.delete_many(k for old, now in parts for k in old.ranges.keys() - now.ranges.keys())
        self.frontends.delete_many(
            k for old, now in parts for k in old.frontends.keys() - now.frontends.keys()
        )
        self._ids.difference_update(head.id for head in gone)
        self.tables.clear_away()
        if any(now.alive.get(k, 0) != state for old, now in parts for k, state in old.alive.items()):
            self.backends_left()

    def _parts(self, key: LbServiceKey, head: LbService, ways: Ways | None) -> Parts:
        met = self.pods_packets or key.scope == LbScope.EXTERNAL
        if ways is None or not (ways.affinity_s or met):
            return NOTHING
        states = dict.fromkeys(ways.leaving, int(LbState.KEEPING))
        states |= dict.fromkeys(ways.backends, int(LbState.TAKING))
        return Parts(
            {
                LbAliveKey(address=b.address, frontend=head.frontend, port=b.port): s
                for b, s in states.items()
            },
            {LbRangeKey.of(head.frontend, network): 1 for network in ways.ranges},
            {head.frontend: LbFrontend(address=key.address, port=key.port)} if met else {},
        )

    def _adopt(self) -> None:
        """Take over what is there and whole; clear away what nothing leads to."""
        slots = self.backends.to_dict()
        alive, ranges, frontends = self.alive.to_dict(), self.ranges.to_dict(), self.frontends.to_dict()
        leaving: dict[int, list[LbAliveKey]] = {}
        for one, state in alive.items():
            if state == LbState.KEEPING:
                leaving.setdefault(one.frontend, []).append(one)
        sources: dict[int, list[LbRangeKey]] = {}
        for source in ranges:
            sources.setdefault(source.frontend, []).append(source)
        self.tables.adopt(self._heads.values())
        used: set[LbBackendKey] = set()
        wanted = Parts({}, {}, {})
        for key, head in self._heads.items():
            keys = _slots(head)
            used.update(keys)
            table = Table(head.table, head.table_size, head.seed) if head.table_size else None
            if not all(k in slots for k in keys) or (table and table.name not in self.tables):
                continue
            ways = Ways(
                tuple(slots[k] for k in keys),
                head.affinity_s,
                frozenset(LbBackend(address=k.address, port=k.port) for k in leaving.get(head.frontend, ())),
                frozenset(network_of(k.prefix_len - 32, k.address) for k in sources.get(head.frontend, ())),
                head.flags,
                table,
            )
            parts = self._parts(key, head, ways)
            wanted.alive.update(parts.alive)
            wanted.ranges.update(parts.ranges)
            wanted.frontends.update(parts.frontends)
            if parts.alive.items() <= alive.items() and parts.frontends.items() <= frontends.items():
                self.copy[key] = ways
        self.backends.delete_many(slots.keys() - used)
        self.alive.delete_many(alive.keys() - wanted.alive.keys())
        self.ranges.delete_many(ranges.keys() - wanted.ranges.keys())
        self.frontends.delete_many(frontends.keys() - wanted.frontends.keys())


def difference(old: Frontends, new: Frontends) -> dict[LbServiceKey, Ways | None]:
    """What to give :meth:`Services.apply` when a Service's frontends change from *old* to *new*."""
    return {**dict.fromkeys(old.keys() - new.keys()), **new} if old else dict(new)


def _head(ways: Ways, id_: int, frontend: int) -> LbService:
    return LbService(
        id=id_,
        frontend=frontend,
        count=len(ways.backends),
        affinity_s=ways.affinity_s,
        flags=ways.flags,
        table=ways.table.name if ways.table else 0,
        table_size=ways.table.size if ways.table else 0,
        seed=ways.table.seed if ways.table else 0,
    )


def _slots(head: LbService) -> list[LbBackendKey]:
    return [LbBackendKey(service=head.id, slot=slot) for slot in range(head.count)]


def _free(last: int, used: set[int]) -> Iterator[int]:
    """Numbers that are not *used*, beginning after *last*; there are more of them than maps take."""
    while True:
        last = last % (FRONTEND_DSR - 1) + 1
        if last not in used:
            yield last
