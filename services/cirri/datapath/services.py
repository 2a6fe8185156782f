"""The maps of Services: ``cirri_lb_services``, ``cirri_lb_backends`` and ``cirri_lb_alive``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from cirri.datapath.frontends import Frontends, Ways
from cirri.layout import (
    LB_ALIVE,
    LB_BACKENDS,
    LB_SERVICES,
    LbAliveKey,
    LbBackendKey,
    LbService,
    LbServiceKey,
)
from cirri.maps import MapFull, open_pinned


class Services:
    """What programs find of Services.

    A frontend's backends are written under a fresh id before its entry is switched to them, so that a
    client meets the old list or the new one.  The frontend's number stays as long as it is there.
    """

    def __init__(self, bpffs: Path) -> None:
        self.services = open_pinned(bpffs, LB_SERVICES)
        self.backends = open_pinned(bpffs, LB_BACKENDS)
        self.alive = open_pinned(bpffs, LB_ALIVE)
        self._heads = self.services.to_dict()
        self.copy: dict[LbServiceKey, Ways] = {}
        self.fault = ""
        self._adopt()
        heads = self._heads.values()
        self._last_id = max((head.id for head in heads), default=0)
        self._last_frontend = max((head.frontend for head in heads), default=0)

    def apply(self, changes: Mapping[LbServiceKey, Ways | None]) -> None:
        """Set frontends, or (where the value is None) remove them."""
        drop = [key for key, value in changes.items() if value is None and key in self._heads]
        put = {k: v for k, v in changes.items() if v is not None and self.copy.get(k) != v}
        before = [(head, self.copy.get(key)) for key in (*drop, *put) if (head := self._heads.get(key))]
        self.services.delete_many(drop)
        for key in drop:
            del self._heads[key]
            self.copy.pop(key, None)
        ids = _free(self._last_id, {head.id for head in self._heads.values()})
        frontends = _free(self._last_frontend, {head.frontend for head in self._heads.values()})
        try:
            for key, ways in put.items():
                self._last_id = next(ids)
                if (old := self._heads.get(key)) is None:
                    self._last_frontend = next(frontends)
                self._put(key, ways, self._last_id, self._last_frontend if old is None else old.frontend)
            self.fault = ""
        except MapFull as error:
            self.fault = str(error)
        live = {head.id for head in self._heads.values()}
        self.backends.delete_many(slot for head, _ in before if head.id not in live for slot in _slots(head))
        now = {h.frontend: _alive(h, self.copy.get(k)) for k in put if (h := self._heads.get(k))}
        self.alive.delete_many(
            one for head, ways in before for one in _alive(head, ways) - now.get(head.frontend, frozenset())
        )

    def _put(self, key: LbServiceKey, ways: Ways, id_: int, frontend: int) -> None:
        head = LbService(id=id_, frontend=frontend, count=len(ways.backends), affinity_s=ways.affinity_s)
        self.backends.put_many(zip(_slots(head), ways.backends, strict=True))
        self.alive.put_many((one, 1) for one in _alive(head, ways))
        self.services.put(key, head)
        self._heads[key], self.copy[key] = head, ways

    def _adopt(self) -> None:
        """Take over what is there and whole; clear away what nothing leads to."""
        slots, alive = self.backends.to_dict(), set(self.alive.keys())
        used: set[LbBackendKey] = set()
        wanted: set[LbAliveKey] = set()
        for key, head in self._heads.items():
            keys = _slots(head)
            used.update(keys)
            if not all(k in slots for k in keys):
                continue
            ways = Ways(tuple(slots[k] for k in keys), head.affinity_s)
            needed = _alive(head, ways)
            wanted |= needed
            if needed <= alive:
                self.copy[key] = ways
        self.backends.delete_many(slots.keys() - used)
        self.alive.delete_many(alive - wanted)


def difference(old: Frontends, new: Frontends) -> dict[LbServiceKey, Ways | None]:
    """What to give :meth:`Services.apply` when a Service's frontends change from *old* to *new*."""
    return {**dict.fromkeys(old.keys() - new.keys()), **new}


def _slots(head: LbService) -> list[LbBackendKey]:
    return [LbBackendKey(service=head.id, slot=slot) for slot in range(head.count)]


def _alive(head: LbService, ways: Ways | None) -> frozenset[LbAliveKey]:
    if ways is None or not ways.affinity_s:
        return frozenset()
    return frozenset(
        LbAliveKey(address=each.address, frontend=head.frontend, port=each.port) for each in ways.backends
    )


def _free(last: int, used: set[int]) -> Iterator[int]:
    """Numbers from 1 that are not *used*, beginning after *last*."""
    while True:
        last = last % 0xFFFF_FFFF + 1
        if last not in used:
            yield last
