"""Which endpoints of a Service take connections, as EndpointSlices tell.

Source: Kubernetes API, EndpointSlice discovery.k8s.io/v1; KEP-1669 (terminating endpoints); KEP-2433 and
KEP-4444 (topology).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Any, Literal, NamedTuple

from cirri.model import Resource

SERVICE_NAME = "kubernetes.io/service-name"

State = Literal["active", "terminating"]


class Backend(NamedTuple):
    """One address and port that serves."""

    address: str
    port: int
    node: str = ""
    """"": outside the cluster, or not known."""
    state: State = "active"
    """``terminating``: keeps the connections it has, and takes new ones only where nobody else is left."""
    weight: int = 1
    """Its share of new connections; 0: none."""

    @property
    def name(self) -> str:
        """``10.52.0.4:80``, ``[fd00::4]:80``."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Endpoint(NamedTuple):
    """An endpoint as its slice has it."""

    address: str
    node: str
    ready: bool
    serving: bool
    terminating: bool
    zones: tuple[str, ...]
    """Zones that it is meant for; (): all."""
    nodes: tuple[str, ...]
    """Nodes that it is meant for; (): all."""


def plain_address(text: str) -> str:
    """*text* as :mod:`ipaddress` writes it, which takes ten times as long.

    Raises:
        ValueError: it is no address.
    """
    family = AF_INET6 if ":" in text else AF_INET
    try:
        packed = inet_pton(family, text)
    except OSError:
        return str(ip_address(text))
    if family == AF_INET:
        return text
    plain = inet_ntop(family, packed)
    return plain if "." not in plain else str(ip_address(packed))


def version_of(address: str) -> int:
    """4 or 6."""
    return 6 if ":" in address else 4


def service_of(endpoint_slice: Resource) -> tuple[str, str]:
    """(namespace, name) of the Service whose backends a slice lists; "" if it names none."""
    metadata = endpoint_slice.manifest.get("metadata") or {}
    return endpoint_slice.namespace, str((metadata.get("labels") or {}).get(SERVICE_NAME) or "")


def backends(
    slices: Iterable[Resource],
    port_name: str,
    protocol: str,
    version: int,
    *,
    node: str = "",
    zone: str = "",
    only_local: bool = False,
    weights: Mapping[str, int] | None = None,
) -> tuple[Backend, ...]:
    """Those that serve *port_name* over IP *version* for clients of *node* in *zone*, sorted.

    *only_local*: those of *node* alone.  *weights*: by address or node name, for those that are not 1.
    Endpoints that are ready take connections; without any, those that still serve while they terminate.
    Terminating ones are there in any case, as such.
    """
    found: dict[tuple[str, int], Endpoint] = {}
    family = "IPv6" if version == 6 else "IPv4"
    for part in slices:
        if (part.manifest.get("addressType") or "IPv4") != family:
            continue
        for port in _ports(part, port_name, protocol):
            for each in _endpoints(part):
                found[each.address, port] = each
    mine = {at: each for at, each in found.items() if each.node == node} if only_local else found
    near = _near({at: each for at, each in mine.items() if each.ready and not each.terminating}, node, zone)
    leaving = {at: each for at, each in mine.items() if each.terminating and each.serving}
    return tuple(
        sorted(
            Backend(
                address,
                port,
                each.node,
                "active" if (address, port) in near else "terminating",
                _weight(each, weights) if weights else 1,
            )
            for (address, port), each in (near | leaving if leaving else near).items()
        )
    )


def local_endpoints(slices: Iterable[Resource], node: str) -> int:
    """How many endpoints of *node* are ready; one that has an address of each family counts once."""
    found = {
        (part.manifest.get("addressType") or "IPv4", each.address)
        for part in slices
        for each in _endpoints(part)
        if each.node == node and each.ready and not each.terminating
    }
    families = [family for family, _ in found]
    return max((families.count(family) for family in families), default=0)


def ready_nodes(slices: Iterable[Resource], version: int) -> frozenset[str]:
    """Nodes with an endpoint of IP *version* that takes connections; or that terminates, if none does."""
    family = "IPv6" if version == 6 else "IPv4"
    parts = [part for part in slices if (part.manifest.get("addressType") or "IPv4") == family]
    found = [each for part in parts for each in _endpoints(part) if each.node]
    ready = frozenset(each.node for each in found if each.ready and not each.terminating)
    return ready or frozenset(each.node for each in found if each.serving and each.terminating)


def choosable(found: Sequence[Backend]) -> tuple[Backend, ...]:
    """Those of *found* that take new connections."""
    active = tuple([each for each in found if each.state == "active" and each.weight])
    return active or tuple([each for each in found if each.state == "terminating" and each.weight])


def _near(ready: dict[tuple[str, int], Endpoint], node: str, zone: str) -> dict[tuple[str, int], Endpoint]:
    """Those meant for this node, else for its zone, else all: hints count only if every endpoint has them."""
    if ready and all(each.nodes for each in ready.values()):
        here = {at: each for at, each in ready.items() if node in each.nodes}
        if here:
            return here
    if zone and ready and all(each.zones for each in ready.values()):
        here = {at: each for at, each in ready.items() if zone in each.zones}
        if here:
            return here
    return ready


def _ports(part: Resource, name: str, protocol: str) -> Iterator[int]:
    for port in part.manifest.get("ports") or []:
        same = str(port.get("name") or "") == name and str(port.get("protocol") or "TCP") == protocol
        if same and port.get("port"):
            yield int(port["port"])


def _endpoints(part: Resource) -> Iterator[Endpoint]:
    for each in part.manifest.get("endpoints") or []:
        conditions: Mapping[str, Any] = each.get("conditions") or {}
        # What is not said counts as ready, and as serving if ready: the API's rule.
        ready = conditions.get("ready") is not False
        serving = conditions.get("serving")
        zones: tuple[str, ...] = ()
        nodes: tuple[str, ...] = ()
        if hints := each.get("hints"):
            zones = tuple(str(zone["name"]) for zone in hints.get("forZones") or [])
            nodes = tuple(str(node["name"]) for node in hints.get("forNodes") or [])
        for address in each.get("addresses") or []:
            yield Endpoint(
                plain_address(str(address)),
                str(each.get("nodeName") or ""),
                ready,
                ready if serving is None else bool(serving),
                bool(conditions.get("terminating")),
                zones,
                nodes,
            )


def _weight(each: Endpoint, weights: Mapping[str, int]) -> int:
    return weights.get(each.address, weights.get(each.node, 1))
