"""What is new between two states of a node's proxies, and the one made of the other.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from msgspec import UNSET
from msgspec.structs import replace

from cirri.proxies.model import NodeChanges, NodeProxies

T = TypeVar("T")

_WHOLE = ("node", "endpoints", "dns", "dns_port", "settings")
"""Fields that are told whole where anything in them is new."""


def changes(before: NodeProxies, after: NodeProxies) -> NodeChanges:
    """What makes *after* of *before*."""
    whole: dict[str, Any] = {
        field: getattr(after, field) for field in _WHOLE if getattr(after, field) != getattr(before, field)
    }
    known = {one.port: one for one in before.listeners}
    ports = tuple(one.port for one in after.listeners)
    if ports != tuple(known):
        whole["ports"] = ports
    return NodeChanges(
        since=before.revision,
        revision=after.revision,
        listeners=tuple(one for one in after.listeners if known.get(one.port) != one),
        names=_new(before.names, after.names),
        no_names=tuple(before.names.keys() - after.names.keys()),
        sets=_new(before.sets, after.sets),
        no_sets=tuple(before.sets.keys() - after.sets.keys()),
        **whole,
    )


def changed(before: NodeProxies, by: NodeChanges) -> NodeProxies:
    """*before* with what is new; what is not stays the same object.  Raises: KeyError about a listener."""
    whole = {field: given for field in _WHOLE if (given := getattr(by, field)) is not UNSET}
    if by.listeners or by.ports is not UNSET:
        listeners = {one.port: one for one in (*before.listeners, *by.listeners)}
        order = listeners if by.ports is UNSET else by.ports
        whole["listeners"] = tuple(listeners[port] for port in order)
    if by.names or by.no_names:
        whole["names"] = _with(before.names, by.names, by.no_names)
    if by.sets or by.no_sets:
        whole["sets"] = _with(before.sets, by.sets, by.no_sets)
    return replace(before, revision=by.revision, **whole)


def _new(before: Mapping[int, T], after: Mapping[int, T]) -> dict[int, T]:
    return {key: value for key, value in after.items() if before.get(key) != value}


def _with(before: Mapping[int, T], new: Mapping[int, T], gone: Iterable[int]) -> dict[int, T]:
    found = {**before, **new}
    for key in gone:
        found.pop(key, None)
    return found
