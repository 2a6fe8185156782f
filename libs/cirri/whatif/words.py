"""Conditions in words: what a rule asks for, and what there is instead.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cirri.engine.explain import Check, Condition, Connection
from cirri.engine.ports import ICMP, ICMPV6, PROTOCOL_NAMES, PROTOCOLS
from cirri.engine.rule import Ports
from cirri.engine.select import ANY_SOURCE, LabelSet, Requirement, require
from cirri.labels import (
    CLUSTER_KEY,
    NAMESPACE_KEY,
    NAMESPACE_LABELS_PREFIX,
    PORT,
    SERVICE_ACCOUNT_KEY,
    Label,
    prefix_of,
)

K8S = "k8s"
SHOWN = 8
"""Ports of one rule that people are shown."""

_NAMES = {NAMESPACE_KEY: "namespace", CLUSTER_KEY: "cluster", SERVICE_ACCOUNT_KEY: "service account"}


class End(NamedTuple):
    """One end of a connection, for people."""

    name: str
    labels: frozenset[str]
    """Of its identity, as the other end sees it."""
    address: str = ""
    """If it is outside the cluster."""
    uncounted: frozenset[str] = frozenset()
    """Labels that it has and that do not count for its identity."""


def sentences(
    conditions: Iterable[Condition], end: End, connection: Connection, *, who: str = "the peer"
) -> tuple[str, ...]:
    """What *conditions* ask for, and what there is instead: ``org=empire: the peer has org=alliance``.

    *end* is *who* they are about; those that find the same are one sentence.
    """
    found: dict[str, list[str]] = {}
    for each in sorted(conditions, key=_order):
        if each.requirement is not None:
            also = " (asked of every peer by another rule)" if each.kind == "requires" else ""
            there = f"{who} {_there(each.requirement, end)}"
            found.setdefault(there, []).append(f"{wanted(each.requirement)}{also}")
        elif each.kind == "port":
            found[f"asked for {_asked(each, connection)}"] = [ports_text(each.ports)]
        else:
            found["an empty list, or a name that nothing has now"] = ["it names nobody"]
    return tuple(f"{', '.join(asked)}: {there}" for there, asked in found.items())


def _order(condition: Condition) -> tuple[int, int]:
    """What a user wrote before what was added for him, peers before ports."""
    one = condition.requirement
    return (0, one.key in _NAMES) if one is not None else (1, 0)


def holding(check: Check, end: End, cluster: str) -> str:
    """What the connection met of a rule that holds: ``org=empire, namespace default; 80/TCP``."""
    labels = LabelSet(end.labels)
    peers = "everybody"
    if check.selector is not None:
        met = next(each for each in check.selector.alternatives if all(one.holds(labels) for one in each))
        added = require(K8S, CLUSTER_KEY, "In", [cluster])
        said = sorted((one for one in met if one != added), key=lambda one: one.key in _NAMES)
        peers = ", ".join(map(wanted, said)) or "every pod"
    return f"{peers}; {ports_text(check.ports) if check.ports is not None else 'every port'}"


def wanted(one: Requirement) -> str:
    """What *one* asks for."""
    name = _name(one)
    values = ",".join(one.values)
    match one.operator:
        case "Within":
            return f"an address in {prefix_of(one.key)}"
        case "NotWithin":
            return f"no address in {prefix_of(one.key)} (except)"
        case "Exists" if one.source == "reserved":
            return f"reserved:{one.key}"
        case "Exists":
            return "a pod" if one.key == NAMESPACE_KEY else f"label {name}"
        case "DoesNotExist":
            return f"not reserved:{one.key}" if one.source == "reserved" else f"no label {name}"
        case "In" if one.source == PORT:
            protocol, _, port = one.key.partition("/")
            return f"{values}/{protocol.upper()} under the name {port}"
        case "In":
            return _equals(one, name, values) if len(one.values) == 1 else f"{name} in ({values})"
        case "NotIn":
            return f"{name} not in ({values})"


def _equals(one: Requirement, name: str, value: str) -> str:
    return f"{name} {value}" if one.key in _NAMES else f"{name}={value}"


def _name(one: Requirement) -> str:
    if one.key in _NAMES:
        return _NAMES[one.key]
    if one.key.startswith(NAMESPACE_LABELS_PREFIX):
        return f"namespace label {one.key.removeprefix(NAMESPACE_LABELS_PREFIX)}"
    return one.key if one.source in {K8S, ANY_SOURCE} else f"{one.source}:{one.key}"


def _there(one: Requirement, end: End) -> str:
    """What the end has instead, as a predicate."""
    labels = LabelSet(end.labels)
    special = sorted(text for text in end.labels if text.startswith("reserved:"))
    what = f"is {end.address}, outside the cluster" if end.address else f"is {' and '.join(special)}"
    if one.operator in {"Within", "NotWithin"}:
        if end.address:
            return f"is {end.address}"
        return "is in the cluster, where no prefix selects anybody"
    if one.operator == "Exists" and one.source == "reserved":
        return what if special else "is a pod"
    if found := labels.values(one.source, one.key):
        return f"has {_equals(one, _name(one), found[0])}" if found[0] else f"has {_name(one)}"
    if special and one.source != PORT:
        return what
    if one.holds(LabelSet(end.uncounted | end.labels)):
        return "has it, but it does not count for its identity (key labels of cirri-config)"
    return f"has no {'port of that name' if one.source == PORT else _label_word(one)}"


def _label_word(one: Requirement) -> str:
    name = _name(one)
    return name if name.startswith("namespace") or one.key in _NAMES else f"label {name}"


def _asked(condition: Condition, connection: Connection) -> str:
    asked = port_text(Ports(connection.protocol, connection.port))
    named = [one for one in condition.ports if one.name]
    if not named:
        return asked
    where = "its" if connection.ingress else "the peer's"
    return f"{asked}, which is not {where} port of that name"


def ports_text(ports: Iterable[Ports]) -> str:
    """``80/TCP, 8000-8010/ANY``; the same port of TCP, UDP and SCTP together is ANY."""
    protocols: dict[tuple[int, int, str], list[int]] = {}
    for one in ports:
        protocols.setdefault(one[1:], []).append(one.protocol)
    found = []
    for (port, end_port, name), numbers in protocols.items():
        every = set(numbers) >= set(PROTOCOLS["ANY"])
        found += [f"{_port(port, end_port, name)}/ANY"] if every else []
        rest = [one for one in numbers if not every or one not in PROTOCOLS["ANY"]]
        found += [port_text(Ports(one, port, end_port, name)) for one in rest]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more if found else "no port"


def port_text(one: Ports) -> str:
    """``80/TCP``, ``http/TCP``, ``any/UDP``, ``type 8/ICMP``."""
    protocol = PROTOCOL_NAMES.get(one.protocol, f"protocol {one.protocol}") if one.protocol else "ANY"
    icmp = "type " if one.protocol in {ICMP, ICMPV6} and (one.port or one.end_port) else ""
    return f"{icmp}{_port(one.port, one.end_port, one.name)}/{protocol}"


def _port(port: int, end_port: int, name: str) -> str:
    if name:
        return name
    if not port and not end_port:
        return "any"
    return f"{port}-{end_port}" if end_port > port else str(port)


def user_labels(labels: Iterable[str]) -> Mapping[str, str]:
    """Those of a pod's identity labels that its manifest gives it."""
    parsed = (Label.parse(text) for text in labels)
    derived = (*_NAMES, NAMESPACE_LABELS_PREFIX)
    return {one.key: one.value for one in parsed if one.source == K8S and not one.key.startswith(derived)}
