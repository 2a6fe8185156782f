"""The maps that programs read, each with a copy of what is in it, so that only differences are written.

The copies are read back from the pinned maps at start: a restarted service continues where the
one before was killed, and clears nothing that is wanted.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from cirri.datapath.frontends import Backends, Frontends
from cirri.engine.entries import Change, Entries, EntryKey, EntryValue, plan
from cirri.layout import (
    ENDPOINTS,
    IPCACHE,
    LB_BACKENDS,
    LB_SERVICES,
    POLICY,
    RUNTIME,
    EndpointFlag,
    EndpointValue,
    IpcacheKey,
    IpcacheValue,
    LbBackend,
    LbBackendKey,
    LbService,
    LbServiceKey,
    PolicyAction,
    PolicyKey,
    PolicyValue,
    RuntimeConfig,
)
from cirri.maps import BpfMap, MapFull, open_pinned

ALL = EndpointFlag.ENFORCE_INGRESS | EndpointFlag.ENFORCE_EGRESS


@dataclass(slots=True)
class PolicySet:
    """The entries under one policy_id, which endpoints of one identity share."""

    policy_id: int
    flags: EndpointFlag
    """What the policy says; while :attr:`fault` stands, endpoints may be under stricter ones."""
    entries: Entries
    fault: str = ""
    """Why it is not all that it should be; then it is closed, not open."""


@dataclass(slots=True)
class Switches:
    """``cirri_runtime``: the epoch that makes cached verdicts be taken again, and the uplink."""

    map: BpfMap[int, RuntimeConfig]
    value: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        self.value = self.map.get(0) or RuntimeConfig()

    def next_epoch(self) -> None:
        """Have every connection's verdict taken again with its next packet."""
        self._set((self.value.epoch + 1) & 0xFFFF_FFFF, self.value.uplink_ifindex)

    def uplink(self, index: int) -> None:
        """Name the device that leads to the other nodes."""
        if index != self.value.uplink_ifindex:
            self._set(self.value.epoch, index)

    def _set(self, epoch: int, uplink: int) -> None:
        self.value = replace(self.value, epoch=epoch, uplink_ifindex=uplink)
        self.map.put(0, self.value)


class Ipcache:
    """``cirri_ipcache``."""

    def __init__(self, bpf: BpfMap[IpcacheKey, IpcacheValue]) -> None:
        self.map, self.copy = bpf, bpf.to_dict()
        self.fault = ""

    def apply(self, changes: Mapping[IpcacheKey, IpcacheValue | None]) -> bool:
        """Write and (where the value is None) delete; True if anything changed.

        A full map leaves new addresses unknown, which no rule for pods matches; the fault says so.
        """
        put = {k: v for k, v in changes.items() if v is not None and self.copy.get(k) != v}
        drop = [k for k, v in changes.items() if v is None and k in self.copy]
        if drop:
            self.map.delete_many(drop)
            for key in drop:
                del self.copy[key]
        if put:
            try:
                self.map.put_many(put.items())
                self.copy.update(put)
                self.fault = ""
            except MapFull as error:
                self.copy = self.map.to_dict()
                self.fault = str(error)
        return bool(put or drop)


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


class Policies:
    """``cirri_policy`` and the endpoints that refer to it (``cirri_endpoints``)."""

    def __init__(
        self,
        policy: BpfMap[PolicyKey, PolicyValue],
        endpoints: BpfMap[bytes, EndpointValue],
    ) -> None:
        self.map, self.endpoint_map = policy, endpoints
        self.endpoints: dict[bytes, EndpointValue] = endpoints.to_dict()
        self.sets: dict[int, PolicySet] = {}
        """By identity."""
        self._last = 0
        self._adopt()

    def _adopt(self) -> None:
        """Find the sets in use.  A switch that a crash cut short is finished: the newer set of an
        identity was whole before the first endpoint was led to it."""
        found: dict[int, Entries] = {}
        for key, entry in self.map.items():
            found.setdefault(key.policy_id, {})[_entry_key(key)] = _entry_value(entry)
        for value in self.endpoints.values():
            now = self.sets.get(value.identity)
            if value.policy_id and (now is None or now.policy_id < value.policy_id):
                entries = found.get(value.policy_id, {})
                self.sets[value.identity] = PolicySet(value.policy_id, EndpointFlag(value.flags), entries)
        for identity, one in self.sets.items():
            self._lead(identity, one.policy_id, one.flags)
        used = {one.policy_id for one in self.sets.values()}
        for policy_id in found.keys() - used:
            self.map.delete_many(_keys(policy_id, found[policy_id]))
        self._last = max(used, default=0)

    def realize(self, identity: int, flags: EndpointFlag, wanted: Entries) -> bool:
        """Put *wanted* in force for every endpoint of *identity*; True if anything changed.

        Each packet meets the old policy or the new one.  When the map is full the identity's
        endpoints end up closed and :attr:`PolicySet.fault` says so.
        """
        now = self.sets.get(identity)
        if now is None or now.flags != flags or now.fault:
            self._switch(identity, flags, wanted)
            return True
        change = plan(now.entries, wanted)
        if not change.put and not change.drop:
            return False
        if not change.in_place:
            self._switch(identity, flags, wanted)
            return True
        self._in_place(identity, now, change, wanted)
        return True

    def patch(self, identity: int, peers: Container[int], wanted: Entries) -> bool:
        """As :meth:`realize`, for the entries of *peers* alone; *wanted* holds only theirs."""
        now = self.sets[identity]
        old = {key: value for key, value in now.entries.items() if key.identity in peers}
        change = plan(old, wanted)
        if not change.put and not change.drop:
            return False
        whole = {key: value for key, value in now.entries.items() if key not in old} | wanted
        if change.in_place and not now.fault:
            self._in_place(identity, now, change, whole)
        else:
            self._switch(identity, now.flags, whole)
        return True

    def under(self, identity: int, value: EndpointValue) -> EndpointValue:
        """*value* as an endpoint of *identity*, whose set has been realized."""
        one = self.sets[identity]
        return endpoint_value(value, identity, one.policy_id, ALL if one.fault else one.flags)

    def put_endpoint(self, address: bytes, value: EndpointValue) -> bool:
        """Set what is known of the pod with *address*; True if that is new.

        Raises:
            MapFull: there is no room; the address stays unknown, and so unreachable.
        """
        if self.endpoints.get(address) == value:
            return False
        self.endpoint_map.put(address, value)
        self.endpoints[address] = value
        return True

    def drop_endpoint(self, address: bytes) -> bool:
        """Forget the pod with *address*; True if it was known."""
        if self.endpoints.pop(address, None) is None:
            return False
        self.endpoint_map.delete(address)
        return True

    def release(self, identity: int) -> None:
        """Remove the entries of *identity* if no endpoint has it any more."""
        if any(value.identity == identity for value in self.endpoints.values()):
            return
        gone = self.sets.pop(identity, None)
        if gone is not None:
            self.map.delete_many(_keys(gone.policy_id, gone.entries))

    def _in_place(self, identity: int, now: PolicySet, change: Change, wanted: Entries) -> None:
        try:
            self.map.put_many(_pairs(now.policy_id, change.put))
        except MapFull:
            now.entries = {**now.entries, **change.put}  # some of them: all are deleted with the set
            self._switch(identity, now.flags, wanted)
            return
        self.map.delete_many(_keys(now.policy_id, change.drop))
        now.entries = dict(wanted)

    def _switch(self, identity: int, flags: EndpointFlag, wanted: Entries) -> None:
        """Write *wanted* under a fresh policy_id, denies first, and lead the endpoints to it."""
        old = self.sets.get(identity)
        policy_id = self._fresh()
        order = sorted(wanted.items(), key=lambda item: not item[1].deny)
        stored, fault = self._store(policy_id, order)
        self._lead(identity, policy_id, flags if _has_denies(order, stored) else ALL)
        if old is not None:
            self.map.delete_many(_keys(old.policy_id, old.entries))
            if fault:  # what was just freed may be enough
                more, fault = self._store(policy_id, order[stored:])
                stored += more
                self._lead(identity, policy_id, flags if _has_denies(order, stored) else ALL)
        self.sets[identity] = PolicySet(policy_id, flags, dict(order[:stored]), fault)

    def _store(self, policy_id: int, order: list[tuple[EntryKey, EntryValue]]) -> tuple[int, str]:
        try:
            return self.map.put_many(_pairs(policy_id, dict(order))), ""
        except MapFull as error:
            return error.stored, str(error)

    def _lead(self, identity: int, policy_id: int, flags: EndpointFlag) -> None:
        for address, value in list(self.endpoints.items()):
            if value.identity == identity:
                self.put_endpoint(address, endpoint_value(value, identity, policy_id, flags))

    def _fresh(self) -> int:
        used = {one.policy_id for one in self.sets.values()}
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
            f"policy of identity {identity} is closed: {one.fault}"
            for identity, one in self.policies.sets.items()
            if one.fault
        ]
        return [sentence for sentence in found if sentence]


def endpoint_value(value: EndpointValue, identity: int, policy_id: int, flags: EndpointFlag) -> EndpointValue:
    """*value* under another identity and set of entries."""
    return EndpointValue(
        ifindex=value.ifindex,
        identity=identity,
        policy_id=policy_id,
        audit_policy_id=value.audit_policy_id,
        id=value.id,
        flags=int(flags),
        mac=value.mac,
        node_mac=value.node_mac,
    )


def difference(old: Frontends, new: Frontends) -> dict[LbServiceKey, Backends | None]:
    """What to give :meth:`Services.apply` when a Service's frontends change from *old* to *new*."""
    return {**dict.fromkeys(old.keys() - new.keys()), **new}


def _has_denies(order: list[tuple[EntryKey, EntryValue]], stored: int) -> bool:
    """Whether every deny is among the first *stored* of *order*, which begins with the denies."""
    return not any(value.deny for _, value in order[stored:])


def _pairs(policy_id: int, entries: Entries) -> Iterable[tuple[PolicyKey, PolicyValue]]:
    for key, value in entries.items():
        yield (
            _policy_key(policy_id, key),
            PolicyValue(
                rule=value.rule, proxy_port=value.proxy_port, action=int(value.deny), priority=value.priority
            ),
        )


def _keys(policy_id: int, keys: Iterable[EntryKey]) -> Iterable[PolicyKey]:
    return (_policy_key(policy_id, key) for key in keys)


def _policy_key(policy_id: int, key: EntryKey) -> PolicyKey:
    return PolicyKey.of(policy_id, key.identity, key.direction, key.protocol, key.port, key.port_bits)


def _entry_key(key: PolicyKey) -> EntryKey:
    return EntryKey(key.identity, key.direction, key.protocol, key.port, key.port_bits)


def _entry_value(value: PolicyValue) -> EntryValue:
    return EntryValue(value.rule, value.action == PolicyAction.DENY, value.proxy_port, value.priority)
