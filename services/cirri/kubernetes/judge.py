"""Which Services cannot be served as they are written: a condition, and an event about each change of it.

Pure: time is an argument.  A Service is looked at again when it changes, its endpoints do, another one that
wants the same address and port does, or nodes or the configuration do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import Any

from cirri.addresses import InvalidPools, cluster_pools
from cirri.addresses.config import service_networks
from cirri.addresses.routing import InvalidRouting, Routing
from cirri.kubernetes.provisional import time_of, time_text
from cirri.kubernetes.state import Change, Key, State, key_of, with_parts
from cirri.loadbalancer import Seniority, seniority, service_of
from cirri.loadbalancer.complaints import Around, Claim, Complaint, Prefixes, claims, complaints
from cirri.manifests.config import CONFIG_NAME, CONFIG_NAMESPACE, node_port_range
from cirri.model import Resource

VALID = "Valid"
"""Type of the condition, in ``status.conditions``; a Service with which nothing was ever wrong has none."""
KEEP_EVENTS = timedelta(hours=1)
AT_ONCE = 1000
"""Services that are looked at in one go: some 50 ms, in which no request is answered."""

_CONFIG = Key("ConfigMap", CONFIG_NAMESPACE, CONFIG_NAME)


class Judge:
    """Remembers what depends on what, and which Services are to be looked at."""

    def __init__(self, objects: Iterable[Resource] = ()) -> None:
        self.dirty: set[Key] = set()
        self._services: dict[Key, dict[Claim, Seniority]] = {}
        self._claimants: dict[Claim, dict[Key, Seniority]] = {}
        self._slices: dict[Key, set[Key]] = {}
        self._owner: dict[Key, Key] = {}
        self._places: dict[Key, frozenset[str]] = {}
        """The nodes that each slice names."""
        self._nodes: set[str] = set()
        self._ranges: Prefixes | None = None
        self._events: set[Key] = set()
        for each in objects:
            self.note(Change("created", each))

    def note(self, change: Change) -> None:
        """An object is another one now, or gone."""
        key, gone = key_of(change.resource), change.action == "deleted"
        if key.kind == "Service":
            self._note_service(key, None if gone else change.resource)
        elif key.kind == "EndpointSlice":
            self._note_slice(key, None if gone else change.resource)
        elif key.kind == "Event":
            (self._events.discard if gone else self._events.add)(key)
        elif key == _CONFIG:
            self.dirty.update(self._services)
        elif key.kind == "Node" and (key.name in self._nodes) == gone:
            self._note_node(key.name)

    def note_ranges(self, ranges: Prefixes) -> None:
        """The ranges of pods' addresses that nodes have."""
        if ranges != self._ranges:
            self._ranges = ranges
            self.dirty.update(self._services)

    def step(self, state: State, now: datetime) -> list[Change]:
        """What becomes of Services and events of *state* at *now*; :attr:`dirty` says what is left."""
        around, changes = _around(state, frozenset(self._nodes), self._ranges), []
        due = set(islice(self.dirty, AT_ONCE))
        # A set that was large stays slow to walk.
        self.dirty = self.dirty - due if len(self.dirty) > AT_ONCE else set()
        for key in sorted(due & state.keys()):
            service = state[key]
            slices = [state[each] for each in sorted(self._slices.get(key, ())) if each in state]
            found = complaints(service, slices, around, partial(self._owner_of, seniority(service)))
            if (wanted := _condition(service, found, now)) is not None:
                changes.append(Change("configured", _with_condition(service, wanted)))
                changes.append(_event(service, wanted, state, now))
        return changes + [
            Change("deleted", event)
            for key in sorted(self._events)
            if (event := state.get(key)) is not None and _last(event) < now - KEEP_EVENTS
        ]

    def _owner_of(self, mine: Seniority, claim: Claim) -> str:
        first = min(self._claimants.get(claim, {}).values(), default=mine)
        return f"{first.namespace}/{first.name}" if first < mine else ""

    def _note_service(self, key: Key, service: Resource | None) -> None:
        now: dict[Claim, Seniority] = {}
        if service is not None:
            with suppress(LookupError, TypeError, ValueError, AttributeError):  # its condition says so
                now = dict.fromkeys(claims(service), seniority(service))
        before = self._services.pop(key, {})
        if service is not None:
            self._services[key] = now
        self.dirty.add(key)
        for claim, _ in before.items() ^ now.items():
            others = self._claimants.setdefault(claim, {})
            others.pop(key, None)
            if claim in now:
                others[key] = now[claim]
            self.dirty.update(others)
            if not others:
                del self._claimants[claim]

    def _note_node(self, name: str) -> None:
        """It came or went.  With the first one the others that slices name turn out not to be there."""
        first = not self._nodes
        self._nodes.symmetric_difference_update({name})
        if first or not self._nodes:
            self.dirty.update(self._services)
        else:
            self.dirty |= {self._owner[key] for key, names in self._places.items() if name in names}

    def _note_slice(self, key: Key, part: Resource | None) -> None:
        before = self._owner.pop(key, None)
        if before is not None:
            self._slices[before].discard(key)
            if not self._slices[before]:
                del self._slices[before]
            self.dirty.add(before)
        self._places.pop(key, None)
        if part is not None:
            endpoints = part.manifest.get("endpoints") or []
            self._places[key] = frozenset(name for each in endpoints if (name := each.get("nodeName")))
            owner = self._owner[key] = Key("Service", *service_of(part))
            self._slices.setdefault(owner, set()).add(key)
            self.dirty.add(owner)


def _around(state: State, nodes: frozenset[str], ranges: Prefixes | None) -> Around:
    data: Mapping[str, str] = state[_CONFIG].manifest.get("data", {}) if _CONFIG in state else {}
    try:
        pools = [prefix for pool in cluster_pools(data).enabled for prefix in pool.cidrs]
        services = service_networks(data)
    except InvalidPools:  # stored by a version with other rules
        pools, services = [], ()
    try:
        tunnel = bool(Routing.of(data).tunnel_port)
    except InvalidRouting:  # nodes say so
        tunnel = False
    return Around(
        node_ports=node_port_range(state.get(_CONFIG)),
        tunnel=tunnel,
        service_families={network.version for network in services} or {4, 6},
        pod_families={prefix.version for prefix in pools} or {4, 6},
        nodes=nodes,
        services=Prefixes(services),
        pools=Prefixes(pools),
        ranges=ranges,
    )


def condition_of(service: Resource) -> Mapping[str, Any]:
    """Its condition; empty: it has none."""
    for each in (service.manifest.get("status") or {}).get("conditions") or []:
        if each.get("type") == VALID:
            return dict(each)
    return {}


def _condition(service: Resource, found: Sequence[Complaint], now: datetime) -> dict[str, Any] | None:
    """What its condition is to be; None: what it is, or none at all."""
    before = condition_of(service)
    if not found and not before:
        return None
    status = "False" if found else "True"
    says = {
        "status": status,
        "reason": found[0].reason if found else "AsWritten",
        "message": "; ".join(map(str, found)),
    }
    if all(before.get(field) == value for field, value in says.items()):
        return None
    since = before["lastTransitionTime"] if before.get("status") == status else time_text(now)
    generation = (service.manifest.get("metadata") or {}).get("generation", 1)
    return {"type": VALID, **says, "lastTransitionTime": since, "observedGeneration": generation}


def _with_condition(service: Resource, condition: dict[str, Any]) -> Resource:
    status = service.manifest.get("status") or {}
    others = [each for each in status.get("conditions") or [] if each.get("type") != VALID]
    return with_parts(service, status={**status, "conditions": [*others, condition]})


def _event(service: Resource, condition: Mapping[str, Any], state: State, now: datetime) -> Change:
    """An Event that says what *condition* says; the same sentence again is counted."""
    uid = str((service.manifest.get("metadata") or {}).get("uid", ""))
    message = condition["message"] or "the Service is served as it is written"
    digest = sha256(f"{uid} {condition['reason']} {message}".encode()).hexdigest()
    key = Key("Event", service.namespace, f"{service.name}.{digest[:16]}")
    known = state.get(key)
    if known is not None:
        more = {"count": known.manifest["count"] + 1, "lastTimestamp": time_text(now)}
        return Change("configured", with_parts(known, **more))
    about = {"apiVersion": "v1", "kind": "Service", "namespace": service.namespace, "name": service.name}
    manifest = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "uid": digest[:32],
            "creationTimestamp": time_text(now),
            "generation": 1,
        },
        "involvedObject": {**about, "uid": uid},
        "type": "Normal" if condition["status"] == "True" else "Warning",
        "reason": condition["reason"],
        "message": message,
        "count": 1,
        "firstTimestamp": time_text(now),
        "lastTimestamp": time_text(now),
        "source": {"component": "cirri-kubernetes"},
    }
    return Change(
        "created", Resource(kind="Event", namespace=key.namespace, name=key.name, manifest=manifest)
    )


def _last(event: Resource) -> datetime:
    try:
        found = time_of(str(event.manifest.get("lastTimestamp")))
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)  # somebody else's, who will remove it
    return found if found.tzinfo else found.replace(tzinfo=UTC)
