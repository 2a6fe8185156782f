"""One Envoy's conversation: what it has been told, what it took, what it refused.  No IO.

The protocol is the delta variant of ADS.  Each response carries one resource, so that a refusal says which.
Source: Envoy, "xDS REST and gRPC protocol", "Incremental xDS".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cirri.l7proxy.messages import (
    CLUSTER_TYPE,
    DELTA_REQUEST,
    DELTA_RESPONSE,
    LISTENER_TYPE,
    RESOURCE_TYPES,
    ROUTE_TYPE,
)
from cirri.l7proxy.resources import Resource, Wanted

WHOLE = frozenset((CLUSTER_TYPE, LISTENER_TYPE))
"""Types of which Envoy has every one, without naming it."""


class Refusal(NamedTuple):
    """Envoy did not take a resource."""

    type: str
    name: str
    version: str
    why: str


@dataclass
class _Type:
    """What Envoy is told of one type."""

    asked: set[str] = field(default_factory=set)
    """Names it wants to be told of."""
    all: bool = False
    told: dict[str, str] = field(default_factory=dict)
    """Name -> version."""
    taken: dict[str, str] = field(default_factory=dict)


class Session:
    """One stream."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._types: dict[str, _Type] = {}
        self._waiting: dict[str, tuple[str, str, str]] = {}
        self._nonce = 0

    def takes(self, type_: str, name: str) -> str:
        """The version of a resource that Envoy has taken; "" for none."""
        return self._types[type_].taken.get(name, "") if type_ in self._types else ""

    def hear(self, data: bytes) -> Refusal | None:
        """Take in a request.  Raises: ValueError if it is none."""
        request = DELTA_REQUEST.decode(data)
        type_ = request.get("type_url", "")
        if type_ not in RESOURCE_TYPES:
            return None
        first = type_ not in self._types
        state = self._types.setdefault(type_, _Type())
        subscribe = request.get("resource_names_subscribe", [])
        if first:
            held = dict(request.get("initial_resource_versions", []))
            state.told, state.taken = dict(held), dict(held)
            state.all = type_ in WHOLE and not subscribe
        state.all = state.all or "*" in subscribe
        state.asked |= set(subscribe)
        for name in request.get("resource_names_unsubscribe", []):
            state.asked.discard(name)
            state.told.pop(name, None)
            state.taken.pop(name, None)
        if not first:
            for name in subscribe:
                # Who asks again has nothing: a listener that was added anew.
                state.told.pop(name, None)
        answered = self._waiting.pop(request.get("response_nonce", ""), None)
        if answered is None:
            return None
        _, name, version = answered
        if error := request.get("error_detail"):
            return Refusal(type_, name, version, error.get("message", "no reason given"))
        if version:
            state.taken[name] = version
        else:
            state.taken.pop(name, None)
        return None

    def say(self, wanted: Wanted) -> Iterator[bytes]:
        """The responses that make Envoy have what is *wanted*: what is named before what names it."""
        for type_ in RESOURCE_TYPES:
            state = self._types.get(type_)
            if state is None:
                continue
            for name, resource in wanted.resources[type_].items():
                if (state.all or name in state.asked) and state.told.get(name) != resource.version:
                    yield self._tell(type_, state, name, resource)
        for type_ in (LISTENER_TYPE, CLUSTER_TYPE):
            state = self._types.get(type_)
            for name in () if state is None else state.told.keys() - wanted.resources[type_].keys():
                yield self._tell(type_, state, name, None)

    def _tell(self, type_: str, state: _Type | None, name: str, resource: Resource | None) -> bytes:
        assert state is not None
        self._nonce += 1
        nonce = str(self._nonce)
        response: dict[str, Any] = {"type_url": type_, "nonce": nonce}
        if resource is None:
            del state.told[name]
            response["removed_resources"] = [name]
            self._waiting[nonce] = (type_, name, "")
        else:
            state.told[name] = resource.version
            body = {"type_url": type_, "value": resource.body}
            response["resources"] = [{"name": name, "version": resource.version, "resource": body}]
            self._waiting[nonce] = (type_, name, resource.version)
        return DELTA_RESPONSE.encode(response)


def serves(session: Session, wanted: Wanted, port: int) -> bool:
    """Whether Envoy has taken what it needs to serve *port* as *wanted*."""
    name = str(port)
    types = [LISTENER_TYPE, *([ROUTE_TYPE] if name in wanted.resources[ROUTE_TYPE] else [])]
    return all(session.takes(type_, name) == wanted.resources[type_][name].version for type_ in types)
