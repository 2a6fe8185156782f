"""``cirri_policy`` and the endpoints that refer to it (``cirri_endpoints``).

The sets of entries of an identity are shared by its endpoints: one that is in force and, if objects
are in audit mode, one that is tried out.  Endpoints are led to both by one write.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from cirri.engine.entries import Change, Entries, EntryKey, EntryValue, plan
from cirri.layout import EndpointFlag, EndpointValue, PolicyAction, PolicyKey, PolicyValue
from cirri.maps import BpfMap, MapFull

NEITHER = EndpointFlag(0)
ALL = EndpointFlag.ENFORCE_INGRESS | EndpointFlag.ENFORCE_EGRESS
KEY_SIZE, POLICY_ID_AT = PolicyKey.size(), 4
"""Bytes of a key, and where in it the policy_id begins."""
MUCH = 64
"""So many changes in a set, if they are more than half of it, are made faster by writing it anew."""
OF_SETS = ALL | EndpointFlag.AUDIT_INGRESS | EndpointFlag.AUDIT_EGRESS | EndpointFlag.NAMES
"""Flags that policy decides; the others are the endpoint's own."""


class Layer:
    """The entries under one policy_id."""

    def __init__(self, policy_id: int, entries: Entries) -> None:
        self.policy_id, self._entries = policy_id, entries
        self._shared = True  # others may hold the same mapping
        self._by_peer: dict[int, set[EntryKey]] | None = None

    @property
    def entries(self) -> Entries:
        """All of them; not to be changed by the caller."""
        return self._entries

    def of(self, peers: Iterable[int]) -> Entries:
        """Those of *peers*."""
        if self._by_peer is None:
            self._by_peer = {}
            for key in self._entries:
                self._by_peer.setdefault(key.identity, set()).add(key)
        by_peer = self._by_peer
        return {key: self._entries[key] for peer in peers for key in by_peer.get(peer, ())}

    def after(self, change: Change) -> Entries:
        """What they are after *change*, as a mapping of its own."""
        drop = set(change.drop)
        return {key: value for key, value in self._entries.items() if key not in drop} | change.put

    def take(self, put: Entries, drop: Iterable[EntryKey] = ()) -> None:
        """Have *put* besides, and *drop* no more."""
        if self._shared:
            self._entries, self._shared = dict(self._entries), False
        for key in drop:
            del self._entries[key]
        self._entries.update(put)
        if (by_peer := self._by_peer) is not None:
            for key in drop:
                by_peer[key.identity].discard(key)
            for key in put:
                by_peer.setdefault(key.identity, set()).add(key)


class Packed:
    """Entries as the map holds them, but for the policy_id: sets with equal entries are packed once."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries
        self.order = sorted(entries.items(), key=lambda item: not item[1].deny)
        """Denies first."""
        self._keys = b"".join(key.pack() for key in _keys(0, (key for key, _ in self.order)))
        self._values = b"".join(_policy_value(value).pack() for _, value in self.order)

    def under(self, policy_id: int, since: int = 0) -> tuple[bytes, bytes]:
        """Keys and values under *policy_id*, in order, without the first *since*."""
        keys = bytearray(self._keys[since * KEY_SIZE :])
        for offset, byte in enumerate(policy_id.to_bytes(4, sys.byteorder), POLICY_ID_AT):
            keys[offset::KEY_SIZE] = bytes((byte,)) * (len(keys) // KEY_SIZE)
        return bytes(keys), self._values[since * PolicyValue.size() :]


@dataclass(slots=True)
class PolicySet:
    """What holds for the endpoints of one identity."""

    layers: tuple[Layer, ...]
    """What is in force and, where there is something to try out, that."""
    flags: EndpointFlag
    """What the policy says, of :data:`OF_SETS`."""
    fault: str = ""
    """Why it is not all that it should be."""
    closed: bool = False
    """A deny did not fit: then nothing passes but what an allow names."""

    def under(self, value: EndpointValue, identity: int) -> EndpointValue:
        """*value* as an endpoint that this holds for."""
        flags = self.flags | ALL if self.closed else self.flags
        trial = self.layers[1].policy_id if len(self.layers) > 1 else 0
        return EndpointValue(
            ifindex=value.ifindex,
            identity=identity,
            policy_id=self.layers[0].policy_id,
            audit_policy_id=trial,
            id=value.id,
            flags=int(value.flags & ~OF_SETS | flags),
            mac=value.mac,
            node_mac=value.node_mac,
        )


class Policies:
    """Both maps, with a copy of what is in them."""

    def __init__(
        self, policy: BpfMap[PolicyKey, PolicyValue], endpoints: BpfMap[bytes, EndpointValue]
    ) -> None:
        self.map, self.endpoint_map = policy, endpoints
        self.endpoints: dict[bytes, EndpointValue] = endpoints.to_dict()
        self.sets: dict[int, PolicySet] = {}
        """By identity."""
        self.dying: list[Layer] = []
        """What no endpoint is led to any more: programs that run may still look into it."""
        self._last = 0
        self._ids: set[int] = set()
        """policy_ids in use, by dying sets too."""
        self._packed: Packed | None = None
        """The newest: one policy often is that of many identities."""
        self._adopt()

    def _adopt(self) -> None:
        """Find the sets in use.  A switch that a crash cut short is finished: the newer sets of an
        identity were whole before the first endpoint was led to them."""
        found: dict[int, Entries] = {}
        for key, entry in self.map.items():
            found.setdefault(key.policy_id, {})[_entry_key(key)] = _entry_value(entry)
        newest: dict[int, EndpointValue] = {}
        for value in self.endpoints.values():
            now = newest.get(value.identity)
            if value.policy_id and (now is None or now.policy_id < value.policy_id):
                newest[value.identity] = value
        for identity, value in newest.items():
            ids = [number for number in (value.policy_id, value.audit_policy_id) if number]
            layers = tuple(Layer(number, found.get(number, {})) for number in ids)
            self.sets[identity] = PolicySet(layers, EndpointFlag(value.flags) & OF_SETS)
            self._lead(identity)
        self._ids = {layer.policy_id for one in self.sets.values() for layer in one.layers}
        for policy_id in found.keys() - self._ids:
            self.map.delete_many(_keys(policy_id, found[policy_id]))
        self._last = max(self._ids, default=0)

    def realize(
        self, identity: int, flags: EndpointFlag, wanted: Entries, trial: Entries | None = None
    ) -> bool:
        """Put *wanted* in force, and try out *trial*, for every endpoint of *identity*; True if anything
        changed.

        Each packet meets the old policy or the new one.  When the map is full the identity's
        endpoints end up closed and :attr:`PolicySet.fault` says so.
        """
        now, goals = self.sets.get(identity), [wanted] if trial is None else [wanted, trial]
        if now is None or now.flags != flags or now.fault or len(now.layers) != len(goals):
            self._switch(identity, flags, goals)
            return True
        if all(map(_much, now.layers, goals)):
            self._switch(identity, flags, goals)
            return True
        changes = [plan(layer.entries, goal) for layer, goal in zip(now.layers, goals, strict=True)]
        return self._change(identity, now, changes)

    def patch(self, identity: int, peers: Collection[int], goals: Sequence[Entries]) -> bool:
        """As :meth:`realize`, for the entries of *peers* alone: *goals* holds only theirs, for each layer.

        Not for a set with a fault, of which a layer may be missing.
        """
        now = self.sets[identity]
        changes = [plan(layer.of(peers), goal) for layer, goal in zip(now.layers, goals, strict=True)]
        return self._change(identity, now, changes)

    def inherit(self, identity: int, heirs: dict[int, int]) -> bool:
        """Let each peer of *heirs* have the entries of its parent, parents first; others keep theirs."""
        goals: list[Entries] = []
        for layer in self.sets[identity].layers:
            of = {peer: layer.of([peer]) for pair in heirs.items() for peer in pair}
            for heir, parent in heirs.items():
                of[heir] |= {key._replace(identity=heir): value for key, value in of[parent].items()}
            goals.append({key: value for heir in heirs for key, value in of[heir].items()})
        return self.patch(identity, heirs, goals)

    def under(self, identity: int, value: EndpointValue) -> EndpointValue:
        """*value* as an endpoint of *identity*, whose set has been realized."""
        return self.sets[identity].under(value, identity)

    def put_endpoint(self, address: bytes, value: EndpointValue) -> bool:
        """Set what is known of the endpoint with *address*; True if that is new.

        Raises:
            MapFull: there is no room; the address stays unknown, and so unreachable.
        """
        if self.endpoints.get(address) == value:
            return False
        self.endpoint_map.put(address, value)
        self.endpoints[address] = value
        return True

    def drop_endpoint(self, address: bytes) -> bool:
        """Forget the endpoint with *address*; True if it was known."""
        if self.endpoints.pop(address, None) is None:
            return False
        self.endpoint_map.delete(address)
        return True

    def release(self, identity: int) -> None:
        """Remove the entries of *identity* if no endpoint has it any more."""
        if any(value.identity == identity for value in self.endpoints.values()):
            return
        gone = self.sets.pop(identity, None)
        for layer in gone.layers if gone is not None else ():
            self._forget(layer)

    def bury(self, layers: Iterable[Layer]) -> None:
        """Remove the entries of some of :attr:`dying`."""
        for layer in list(layers):
            self._forget(layer)
            self.dying.remove(layer)

    def _change(self, identity: int, now: PolicySet, changes: Sequence[Change]) -> bool:
        if not any(change.put or change.drop for change in changes):
            return False
        if all(change.in_place for change in changes):
            try:
                for layer, change in zip(now.layers, changes, strict=True):
                    self.map.put_many(_pairs(layer.policy_id, change.put.items()))
                    self.map.delete_many(_keys(layer.policy_id, change.drop))
            except MapFull:
                pass
            else:
                for layer, change in zip(now.layers, changes, strict=True):
                    layer.take(change.put, change.drop)
                return True
        goals = [layer.after(change) for layer, change in zip(now.layers, changes, strict=True)]
        for layer, change in zip(now.layers, changes, strict=True):
            layer.take(change.put)  # some were written, perhaps: all go with the set
        self._switch(identity, now.flags, goals)
        return True

    def _switch(self, identity: int, flags: EndpointFlag, goals: Sequence[Entries]) -> None:
        """Write *goals* under fresh ids, denies first, and lead the endpoints to them."""
        old = self.sets.get(identity)
        self.sets[identity] = self._written(flags, goals)
        self._lead(identity)
        self.dying += old.layers if old is not None else ()
        if self.sets[identity].fault and self.dying:  # their room may be enough
            self.bury(self.dying)
            self.sets[identity] = self._written(flags, goals, self.sets[identity])
            self._lead(identity)

    def _written(
        self, flags: EndpointFlag, goals: Sequence[Entries], begun: PolicySet | None = None
    ) -> PolicySet:
        """A set with as much of *goals* as fits, where *begun* has a part of it already.

        What is tried out is there whole or not at all: a part of it would report what is not so.
        """
        packed = self._pack(goals[0])
        first = begun.layers[0] if begun is not None else Layer(self._fresh(), {})
        have = len(first.entries)
        stored, fault = self._store(packed, first.policy_id, have)
        whole = have + stored == len(packed.order)
        layers = [Layer(first.policy_id, goals[0] if whole else dict(packed.order[: have + stored]))]
        for goal in goals[1:] if not fault else ():
            trial = Layer(self._fresh(), goal)
            _, fault = self._store(self._pack(goal), trial.policy_id)
            if fault:
                self._forget(trial)
            else:
                layers.append(trial)
        missing = packed.order[have + stored :]
        return PolicySet(tuple(layers), flags, fault, any(value.deny for _, value in missing))

    def _pack(self, entries: Entries) -> Packed:
        if self._packed is None or self._packed.entries is not entries:
            self._packed = Packed(entries)
        return self._packed

    def _store(self, packed: Packed, policy_id: int, since: int = 0) -> tuple[int, str]:
        try:
            return self.map.put_many_raw(*packed.under(policy_id, since)), ""
        except MapFull as error:
            return error.stored, str(error)

    def _lead(self, identity: int) -> None:
        one = self.sets[identity]
        for address, value in list(self.endpoints.items()):
            if value.identity == identity:
                self.put_endpoint(address, one.under(value, identity))

    def _fresh(self) -> int:
        while True:
            self._last = self._last % 0xFFFF_FFFF + 1
            if self._last not in self._ids:
                self._ids.add(self._last)
                return self._last

    def _forget(self, layer: Layer) -> None:
        self.map.delete_many(_keys(layer.policy_id, layer.entries))
        self._ids.discard(layer.policy_id)


def _much(layer: Layer, goal: Entries) -> bool:
    """Whether more than half of a large set changes."""
    if len(goal) < MUCH:
        return False
    same = sum(1 for key, value in layer.entries.items() if goal.get(key) == value)
    return 2 * same < len(goal)


def _pairs(
    policy_id: int, entries: Iterable[tuple[EntryKey, EntryValue]]
) -> Iterable[tuple[PolicyKey, PolicyValue]]:
    return ((_policy_key(policy_id, key), _policy_value(value)) for key, value in entries)


def _keys(policy_id: int, keys: Iterable[EntryKey]) -> Iterable[PolicyKey]:
    return (_policy_key(policy_id, key) for key in keys)


def _policy_key(policy_id: int, key: EntryKey) -> PolicyKey:
    return PolicyKey.of(policy_id, key.identity, key.direction, key.protocol, key.port, key.port_bits)


def _policy_value(value: EntryValue) -> PolicyValue:
    action = PolicyAction.DENY if value.deny else PolicyAction.AUTH if value.auth else PolicyAction.ALLOW
    return PolicyValue(
        rule=value.rule, proxy_port=value.proxy_port, action=int(action), priority=value.priority
    )


def _entry_key(key: PolicyKey) -> EntryKey:
    return EntryKey(key.identity, key.direction, key.protocol, key.port, key.port_bits)


def _entry_value(value: PolicyValue) -> EntryValue:
    deny, auth = value.action == PolicyAction.DENY, value.action == PolicyAction.AUTH
    return EntryValue(value.rule, deny, value.proxy_port, value.priority, auth)
