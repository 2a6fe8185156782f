"""The maps that programs read, each with a copy of what is in it, so that only differences are written.

The copies are read back from the pinned maps at start: a restarted service continues where the
one before was killed, and clears nothing that is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from cirri.datapath.frontends import Backends, Frontends
from cirri.datapath.ipcache import Ipcache
from cirri.datapath.policies import Policies
from cirri.layout import (
    ENDPOINTS,
    IPCACHE,
    LB_BACKENDS,
    LB_SERVICES,
    POLICY,
    RUNTIME,
    LbBackend,
    LbBackendKey,
    LbService,
    LbServiceKey,
    RuntimeConfig,
    RuntimeFlag,
)
from cirri.maps import BpfMap, MapFull, open_pinned


@dataclass(slots=True)
class Switches:
    """``cirri_runtime``: the epoch that makes cached verdicts be taken again, and switches."""

    map: BpfMap[int, RuntimeConfig]
    value: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        self.value = self.map.get(0) or RuntimeConfig()

    def next_epoch(self) -> None:
        """Have every connection's verdict taken again with its next packet."""
        self._set(epoch=(self.value.epoch + 1) & 0xFFFF_FFFF)

    def uplink(self, index: int) -> None:
        """Name the device that leads to the other nodes."""
        self._set(uplink_ifindex=index)

    @property
    def host_firewall(self) -> bool:
        """Whether the node's own traffic is judged."""
        return bool(self.value.flags & RuntimeFlag.HOST_FIREWALL)

    @host_firewall.setter
    def host_firewall(self, on: bool) -> None:
        flags = RuntimeFlag(self.value.flags) & ~RuntimeFlag.HOST_FIREWALL
        self._set(flags=int(flags | RuntimeFlag.HOST_FIREWALL if on else flags))

    def _set(self, **fields: int) -> None:
        value = replace(self.value, **fields)
        if value != self.value:
            self.value = value
            self.map.put(0, value)


class Services:
    """``cirri_lb_services`` and ``cirri_lb_backends``.

    A frontend's backends are written under a fresh id before its entry is switched to them,
    so that a client meets the old list or the new one.
    """

    def __init__(
        self, services: BpfMap[LbServiceKey, LbService], backends: BpfMap[LbBackendKey, LbBackend]
    ) -> None:
        self.services, self.backends = services, backends
        slots = backends.to_dict()
        self._heads = services.to_dict()
        self.copy: dict[LbServiceKey, Backends] = {}
        torn = set()
        used: set[LbBackendKey] = set()
        for key, head in self._heads.items():
            keys = [LbBackendKey(service=head.id, slot=slot) for slot in range(head.count)]
            used.update(keys)
            if all(k in slots for k in keys):
                self.copy[key] = tuple(slots[k] for k in keys)
            else:
                torn.add(key)
        backends.delete_many(slots.keys() - used)
        self._last = max((head.id for head in self._heads.values()), default=0)
        self.fault = ""

    def apply(self, changes: Mapping[LbServiceKey, Backends | None]) -> None:
        """Set frontends, or (where the value is None) remove them."""
        drop = [key for key, value in changes.items() if value is None and key in self._heads]
        put = {k: v for k, v in changes.items() if v is not None and self.copy.get(k) != v}
        old = [slot for key in (*drop, *put) for slot in self._slots(self._heads.get(key))]
        self.services.delete_many(drop)
        for key in drop:
            del self._heads[key]
            self.copy.pop(key, None)
        try:
            for key, backends in put.items():
                head = LbService(id=self._fresh(), count=len(backends))
                self.backends.put_many(zip(self._slots(head), backends, strict=True))
                self.services.put(key, head)
                self._heads[key], self.copy[key] = head, backends
            self.fault = ""
        except MapFull as error:
            self.fault = str(error)
        live = {head.id for head in self._heads.values()}
        self.backends.delete_many(slot for slot in old if slot.service not in live)

    def _slots(self, head: LbService | None) -> list[LbBackendKey]:
        return [LbBackendKey(service=head.id, slot=s) for s in range(head.count)] if head else []

    def _fresh(self) -> int:
        used = {head.id for head in self._heads.values()}
        while True:
            self._last = self._last % 0xFFFF_FFFF + 1
            if self._last not in used:
                return self._last


class Kernel:
    """All maps of a node that this service writes."""

    def __init__(self, bpffs: Path) -> None:
        self.runtime = Switches(open_pinned(bpffs, RUNTIME))
        self.ipcache = Ipcache(open_pinned(bpffs, IPCACHE))
        self.services = Services(open_pinned(bpffs, LB_SERVICES), open_pinned(bpffs, LB_BACKENDS))
        self.policies = Policies(open_pinned(bpffs, POLICY), open_pinned(bpffs, ENDPOINTS))
        self.runtime.next_epoch()  # what programs remember may be from before a crash

    def faults(self) -> list[str]:
        """What is not in the kernel although it should be, one sentence each."""
        found = [self.ipcache.fault, self.services.fault]
        found += [
            f"policy of identity {identity} is not all in force: {one.fault}"
            for identity, one in self.policies.sets.items()
            if one.fault
        ]
        return [sentence for sentence in found if sentence]


def difference(old: Frontends, new: Frontends) -> dict[LbServiceKey, Backends | None]:
    """What to give :meth:`Services.apply` when a Service's frontends change from *old* to *new*."""
    return {**dict.fromkeys(old.keys() - new.keys()), **new}
