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
from typing import Any

from cirri.addresses import InvalidPools, cluster_pools
from cirri.addresses.config import service_networks
from cirri.addresses.routing import InvalidRouting, Routing
from cirri.kubernetes.provisional import time_of, time_text
from cirri.kubernetes.state import Change, Key, State, key_of, with_parts
from cirri.loadbalancer import Seniority, seniority, service_of
from cirri.loadbalancer.complaints import Around, Claim, Complaint, claims, complaints
from cirri.manifests.config import CONFIG_NAME, CONFIG_NAMESPACE, node_port_range
from cirri.model import Resource

VALID = "Valid"
"""Type of the condition, in ``status.conditions``; a Service with which nothing was ever wrong has none."""
KEEP_EVENTS = timedelta(hours=1)

_CONFIG = Key("ConfigMap", CONFIG_NAMESPACE, CONFIG_NAME)


class Judge:
    """Remembers what depends on what, and which Services are to be looked at."""

    def __init__(self, objects: Iterable[Resource] = ()) -> None:
        self.dirty: set[Key] = set()
        self._services: dict[Key, frozenset[Claim]] = {}
        self._claimants: dict[Claim, dict[Key, Seniority]] = {}
        self._slices: dict[Key, set[Key]] = {}
        self._owner: dict[Key, Key] = {}
        self._nodes: set[str] = set()
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
            self._nodes.symmetric_difference_update({key.name})
            self.dirty.update(self._services)

    def step(self, state: State, now: datetime) -> list[Change]:
        """What becomes of Services and events of *state* at *now*; nothing is left to be looked at."""
        around, changes = _around(state, frozenset(self._nodes)), []
        due, self.dirty = self.dirty, set()
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
        before = self._services.pop(key, frozenset())
        now: frozenset[Claim] = frozenset()
        if service is not None:
            with suppress(LookupError, TypeError, ValueError, AttributeError):  # its condition says so
                now = claims(service)
            self._services[key] = now
            for claim in now:
                self._claimants.setdefault(claim, {})[key] = seniority(service)
        for claim in before - now:
            self._claimants[claim].pop(key)
            if not self._claimants[claim]:
                del self._claimants[claim]
        self.dirty.add(key)
        for claim in before | now:
            self.dirty.update(self._claimants.get(claim, ()))

    def _note_slice(self, key: Key, part: Resource | None) -> None:
        before = self._owner.pop(key, None)
        if before is not None:
            self._slices[before].discard(key)
            if not self._slices[before]:
                del self._slices[before]
            self.dirty.add(before)
        if part is not None:
            owner = self._owner[key] = Key("Service", *service_of(part))
            self._slices.setdefault(owner, set()).add(key)
            self.dirty.add(owner)


def _around(state: State, nodes: frozenset[str]) -> Around:
    data: Mapping[str, str] = state[_CONFIG].manifest.get("data", {}) if _CONFIG in state else {}
    try:
        pools = cluster_pools(data)
        pod_families = {prefix.version for pool in pools.enabled for prefix in pool.cidrs}
    except InvalidPools:
        pod_families = {4, 6}
    try:
        tunnel = bool(Routing.of(data).tunnel_port)
    except InvalidRouting:  # nodes say so
        tunnel = False
    return Around(
        node_ports=node_port_range(state.get(_CONFIG)),
        tunnel=tunnel,
        service_families={network.version for network in service_networks(data)},
        pod_families=pod_families,
        nodes=nodes,
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
