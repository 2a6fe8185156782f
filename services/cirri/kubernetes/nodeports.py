"""Node ports of Services: honoured, kept, or chosen; never given twice.  Pure.

Follows Kubernetes: the first part of the range is left to ports that manifests name (KEP-3668), a port stays
with its Service for as long as the Service wants one, and one number may serve two protocols.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from cirri.errors import CirriError
from cirri.kubernetes.state import State, with_parts
from cirri.model import Resource

HEALTH = "healthCheckNodePort"


class NodePort(NamedTuple):
    """A port of every node."""

    protocol: str
    number: int


class PortRefused(CirriError):
    """A Service cannot have the node ports it asks for."""

    def __init__(self, field: str, why: str) -> None:
        self.field, self.why = field, why
        super().__init__(f"spec.{field}: {why}")


def taken(state: State) -> dict[NodePort, str]:
    """Every node port in *state* and the ``namespace/name`` of the Service that has it."""
    return {
        port: f"{resource.namespace}/{resource.name}"
        for key, resource in state.items()
        if key.kind == "Service"
        for port in _ports_of(resource.manifest["spec"])
    }


def requested(service: Resource) -> list[NodePort]:
    """The ports that a manifest names."""
    return _ports_of(service.manifest["spec"])


def with_node_ports(
    service: Resource, old: Resource | None, used: Mapping[NodePort, str], allowed: range
) -> Resource:
    """*service* with its node ports filled in, or removed where its type has none.

    *old* is the Service as it was, *used* the ports of all others, *allowed* the cluster's range.
    Raises :class:`PortRefused`.
    """
    spec = service.manifest["spec"]
    before: dict[str, Any] = old.manifest["spec"] if old is not None else {}
    ports = [dict(port) for port in spec.get("ports", ())]
    mine = dict(used)
    if _wants_health(spec) and (held := before.get(HEALTH)):
        mine[NodePort("TCP", held)] = _name(service)
    wants = _wants_ports(spec)
    for at, port in enumerate(ports):
        if number := port.get("nodePort"):
            if not _may_have_ports(spec):
                raise PortRefused(f"ports[{at}].nodePort", f"a Service of type {spec['type']} has none")
            range_ = None if number == _held(port, before) else allowed
            _check(f"ports[{at}].nodePort", NodePort(port["protocol"], number), mine, range_)
            mine[NodePort(port["protocol"], number)] = _name(service)
    for port in ports:
        if wants and not port.get("nodePort"):
            port["nodePort"] = _kept(port, before, mine) or _chosen(service, port, ports, mine, allowed)
            mine[NodePort(port["protocol"], port["nodePort"])] = _name(service)
        elif not port.get("nodePort"):
            port.pop("nodePort", None)
    health = _health(service, before, mine, allowed)
    kept = {key: value for key, value in spec.items() if key not in ("ports", HEALTH)}
    found = {**kept, **({"ports": ports} if "ports" in spec else {}), **({HEALTH: health} if health else {})}
    return with_parts(service, spec=found)


def _health(
    service: Resource, before: Mapping[str, Any], used: Mapping[NodePort, str], allowed: range
) -> int:
    """The port on which nodes tell balancers outside whether they have a backend; 0: none is wanted."""
    spec = service.manifest["spec"]
    asked = int(spec.get(HEALTH) or 0)
    held = int(before.get(HEALTH) or 0)
    if not _wants_health(spec):
        if asked:
            raise PortRefused(HEALTH, "needs type LoadBalancer and externalTrafficPolicy Local")
        return 0
    if held and asked and asked != held:
        raise PortRefused(HEALTH, f"cannot change from {held}; delete the Service first")
    if held:
        return held
    if asked:
        _check(HEALTH, NodePort("TCP", asked), used, allowed)
        return asked
    return choose(allowed, {port.number for port in used}, f"{_name(service)}/health")


def choose(allowed: range, used: set[int], name: str) -> int:
    """A free port of *allowed* for *name*: the same one whenever it is free.

    Raises :class:`PortRefused` when all are in use.
    """
    size = len(allowed)
    reserved = min(max(16, size // 32), 128, size // 2)
    dynamic = size - reserved
    start = int.from_bytes(sha256(name.encode()).digest()[:8], "big") % dynamic
    for first, length, offset in ((reserved, dynamic, start), (0, reserved, 0)):
        for step in range(length):
            number = allowed[first + (offset + step) % length]
            if number not in used:
                return number
    raise PortRefused("ports", f"node-port-range {allowed[0]},{allowed[-1]} is exhausted")


def _chosen(
    service: Resource,
    port: Mapping[str, Any],
    ports: Sequence[Mapping[str, Any]],
    used: Mapping[NodePort, str],
    allowed: range,
) -> int:
    # A port that is served over two protocols keeps one number, if it can.
    for other in ports:
        number = other.get("nodePort")
        if number and other["port"] == port["port"] and NodePort(port["protocol"], number) not in used:
            return int(number)
    numbers = {each.number for each in used}
    return choose(allowed, numbers, f"{_name(service)}/{port['protocol']}/{port['port']}")


def _kept(port: Mapping[str, Any], before: Mapping[str, Any], used: Mapping[NodePort, str]) -> int:
    held = _held(port, before)
    return held if held and NodePort(port["protocol"], held) not in used else 0


def _held(port: Mapping[str, Any], before: Mapping[str, Any]) -> int:
    """The node port that this port had."""
    for old in before.get("ports", ()):
        if (old["port"], old["protocol"]) == (port["port"], port["protocol"]):
            return int(old.get("nodePort") or 0)
    return 0


def _check(field: str, port: NodePort, used: Mapping[NodePort, str], allowed: range | None) -> None:
    """*allowed* None: the Service has it already, from a time with another range perhaps."""
    if allowed is not None and port.number not in allowed:
        raise PortRefused(field, f"{port.number} is not in node-port-range {allowed[0]},{allowed[-1]}")
    if port in used:
        raise PortRefused(field, f"{port.number}/{port.protocol} already belongs to Service {used[port]}")


def _may_have_ports(spec: Mapping[str, Any]) -> bool:
    return spec["type"] in ("NodePort", "LoadBalancer")


def _wants_ports(spec: Mapping[str, Any]) -> bool:
    if spec["type"] == "LoadBalancer":
        return spec.get("allocateLoadBalancerNodePorts") is not False
    return bool(spec["type"] == "NodePort")


def _wants_health(spec: Mapping[str, Any]) -> bool:
    return bool(spec["type"] == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local")


def _ports_of(spec: Mapping[str, Any]) -> list[NodePort]:
    found = [
        NodePort(port["protocol"], port["nodePort"]) for port in spec.get("ports", ()) if port.get("nodePort")
    ]
    return [*found, NodePort("TCP", spec[HEALTH])] if spec.get(HEALTH) else found


def _name(service: Resource) -> str:
    return f"{service.namespace}/{service.name}"
