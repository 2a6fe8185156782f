"""What an apply request changes.  Pure: time and fresh ids are arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from cirri.addresses.config import InvalidPools, Pools, cluster_pools
from cirri.kubernetes import clusterip, nodeports
from cirri.kubernetes.clusterip import AddressRefused, requested, with_addresses
from cirri.kubernetes.nodeports import PortRefused, with_node_ports
from cirri.kubernetes.provisional import deadline, with_deadline
from cirri.kubernetes.state import NAME_LABEL, Change, Key, Refused, State, key_of, problem, with_parts
from cirri.manifests import Problem, path_text
from cirri.manifests.config import (
    CONFIG_NAME,
    CONFIG_NAMESPACE,
    node_port_range,
    pool_faults,
    service_ranges,
)
from cirri.model import Resource

MAX_BYTES = 900_000
"""Of one object as stored; a key of the bus holds 1 MiB."""

_CONFIG = Key("ConfigMap", CONFIG_NAMESPACE, CONFIG_NAME)
_SET_BY_US = ("uid", "creationTimestamp", "generation")


def plan_apply(
    state: State, objects: Sequence[Resource], *, now: str, new_uid: Callable[[], str]
) -> list[Change]:
    """The change for each of *objects*, in their order; raises :class:`Refused` with every problem.

    *now* is RFC 3339 in UTC.  Objects are checked already, and no two have the same name.
    """
    namespaces = {new.namespace for new in objects if Key("Namespace", "", new.namespace) in state}
    namespaces |= {new.name for new in objects if new.kind == "Namespace"}
    pools = _pools(state) if any(key_of(new) == _CONFIG for new in objects) else None
    problems = [fault for new in objects for fault in _faults(new, state.get(key_of(new)), namespaces, pools)]
    if problems:
        raise Refused(problems)
    merged = _addressed([_merged(new, state.get(key_of(new))) for new in objects], state)
    return [_change(new, state.get(key_of(new)), now, new_uid) for new in merged]


def plan_status(state: State, objects: Sequence[Resource]) -> list[Change]:
    """As :func:`plan_apply` for a request that replaces statuses and nothing else."""
    require_existing(state, objects)
    changes = []
    for new in objects:
        old = state[key_of(new)]
        now = with_parts(old, status=_status(new, old))
        changes.append(Change("unchanged" if now == old else "configured", now if now != old else old))
    return changes


def _status(new: Resource, old: Resource) -> Any:
    """The new status; the conditions of a Service are ours, and stay unless it brings others."""
    status = new.manifest.get("status", {})
    if new.kind == "Service" and "conditions" not in status:
        before = old.manifest.get("status") or {}
        status = {**status, **{part: before[part] for part in ("conditions",) if part in before}}
    return status


def require_existing(state: State, objects: Sequence[Resource]) -> None:
    """Raise :class:`Refused` unless every one of *objects* exists."""
    missing = [new for new in objects if key_of(new) not in state]
    if missing:
        raise Refused(problem(new, "metadata.name", "no such object") for new in missing)


def _faults(
    new: Resource, old: Resource | None, namespaces: set[str], pools: Pools | None
) -> Iterator[Problem]:
    """What is wrong with *new* in this cluster."""
    if new.namespace and new.namespace not in namespaces:
        yield problem(new, "metadata.namespace", f'namespace "{new.namespace}" does not exist')
    if old is not None and old.node and new.node and new.node != old.node:
        yield problem(new, "spec.nodeName", f'cannot change from "{old.node}"; delete the Pod first')
    if key_of(new) == _CONFIG:
        for path, says in pool_faults(new.manifest.get("data", {}), pools):
            yield problem(new, path_text(path), says)
    size = len(msgspec.msgpack.encode(new.manifest))
    if size > MAX_BYTES:
        yield problem(new, "", f"has {size} bytes; allowed: at most {MAX_BYTES}")


def _pools(state: State) -> Pools | None:
    """The pools that nodes may have ranges of; None where there are no nodes, or nothing is known."""
    if not any(key.kind == "Node" for key in state):
        return None
    try:
        return cluster_pools(state[_CONFIG].manifest.get("data", {}) if _CONFIG in state else {})
    except InvalidPools:  # stored by a version with other rules
        return None


def _merged(new: Resource, old: Resource | None) -> Resource:
    """*new* with what the cluster has filled in since *old* was written."""
    metadata = {k: v for k, v in new.manifest["metadata"].items() if k not in _SET_BY_US}
    if new.kind == "Namespace":
        metadata["labels"] = {**metadata.get("labels", {}), NAME_LABEL: new.name}
    new = with_deadline(with_parts(new, metadata=metadata), deadline(old) if old is not None else "")
    status = new.manifest.get("status")
    if old is not None and (new.kind != "Node" or status is None):
        status = old.manifest.get("status")
    parts = {part: value for part, value in new.manifest.items() if part != "status"}
    # Last, where a restart puts it too: equal objects have equal bytes, so nothing is written again.
    new = replace(new, manifest=parts if status is None else {**parts, "status": status})
    if old is None:
        return new
    kept = {k: v for k, v in old.manifest["metadata"].items() if k in (*_SET_BY_US, "ownerReferences")}
    new = with_parts(new, metadata={**kept, **new.manifest["metadata"]})
    if new.kind == "Pod" and old.node and not new.node:
        new = with_parts(new, spec={**new.manifest["spec"], "nodeName": old.node})
        new = replace(new, node=old.node)
    return new


def _addressed(objects: Sequence[Resource], state: State) -> list[Resource]:
    """*objects* with every Service's addresses and node ports; what manifests name is served first."""
    services = [new for new in objects if new.kind == "Service"]
    if not services:
        return list(objects)
    config = next((new for new in objects if key_of(new) == _CONFIG), state.get(_CONFIG))
    ranges, allowed = service_ranges(config), node_port_range(config)
    addresses, ports = clusterip.taken(state), nodeports.taken(state)
    done: dict[Key, Resource] = {}
    problems: list[Problem] = []
    for new in sorted(services, key=lambda s: not (requested(s) or nodeports.requested(s))):
        key, name = key_of(new), f"{new.namespace}/{new.name}"
        addresses = {address: owner for address, owner in addresses.items() if owner != name}
        ports = {port: owner for port, owner in ports.items() if owner != name}
        try:
            served = with_addresses(new, state.get(key), addresses, ranges)
            done[key] = with_node_ports(served, state.get(key), ports, allowed)
        except (AddressRefused, PortRefused) as refused:
            problems.append(problem(new, f"spec.{refused.field}", refused.why))
            continue
        addresses |= clusterip.taken({key: done[key]})
        ports |= nodeports.taken({key: done[key]})
    if problems:
        raise Refused(problems)
    return [done.get(key_of(new), new) for new in objects]


def _change(new: Resource, old: Resource | None, now: str, new_uid: Callable[[], str]) -> Change:
    if old is None:
        given = {"uid": new_uid(), "creationTimestamp": now, "generation": 1}
        return Change("created", with_parts(new, metadata={**new.manifest["metadata"], **given}))
    if new.manifest == old.manifest:
        return Change("unchanged", old)
    if _body(new.manifest) != _body(old.manifest):
        generation = old.manifest["metadata"]["generation"] + 1
        new = with_parts(new, metadata={**new.manifest["metadata"], "generation": generation})
    return Change("configured", new, old if old.node != new.node else None)


def _body(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What ``generation`` counts changes of."""
    return {part: value for part, value in manifest.items() if part not in ("metadata", "status")}


def system_namespaces(state: State, names: Iterable[str]) -> list[Resource]:
    """Manifests of the Namespaces of *names* that *state* lacks."""
    return [
        Resource(
            kind="Namespace",
            name=name,
            manifest={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
        )
        for name in names
        if Key("Namespace", "", name) not in state
    ]
