"""What keeps a Service from being served as it is written, in the cluster around it.  Pure.

What is wrong with a manifest by itself is refused when it is applied; here is what turns out later, when the
configuration, its endpoints, nodes or other Services change, or comes from an API server that knows less.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, NamedTuple

from cirri.loadbalancer.annotations import annotation_faults
from cirri.loadbalancer.config import NOT_DIRECT
from cirri.loadbalancer.frontends import ANNOTATIONS, is_served
from cirri.model import Resource

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

SHOWN = 3
"""Addresses and names that a sentence has at most."""


class Complaint(NamedTuple):
    """One thing."""

    reason: str
    """One word, for machines."""
    path: str
    """Field of the Service."""
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class Claim(NamedTuple):
    """Where a Service wants to be served, alone."""

    address: str
    """"": every address of every node."""
    port: int
    protocol: str

    def __str__(self) -> str:
        where = f"{self.address} port" if self.address else "node port"
        return f"{where} {self.port}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Around:
    """What of the cluster matters."""

    node_ports: range = range(30000, 32768)
    tunnel: bool = False
    """Whether packets between nodes take tunnels."""
    service_families: Collection[int] = (4, 6)
    """Those of ``service-cluster-ip-range``."""
    pod_families: Collection[int] = (4, 6)
    """Those that pods have addresses of."""
    nodes: Collection[str] = ()
    """Every node; empty: not known."""
    services: Container[Address] = ()
    """Addresses that Services may have."""
    pools: Container[Address] = ()
    """Addresses that pods may have."""
    ranges: Container[Address] | None = None
    """Those of them that lie behind a node; None: not known."""


class Prefixes:
    """The addresses in *networks*."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._known: dict[tuple[int, int], set[int]] = {}
        for each in networks:
            host_bits = each.max_prefixlen - each.prefixlen
            prefix = int(each.network_address) >> host_bits
            self._known.setdefault((each.version, host_bits), set()).add(prefix)

    def __contains__(self, address: object) -> bool:
        if not isinstance(address, Address):
            return False
        return any(
            version == address.version and int(address) >> host_bits in known
            for (version, host_bits), known in self._known.items()
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prefixes) and self._known == other._known

    def __hash__(self) -> int:
        return hash(tuple(self._known))


def claims(service: Resource) -> frozenset[Claim]:
    """Every place where *service* wants to be served.  Raises what :func:`complaints` says of it."""
    if not is_served(service):
        return frozenset()
    spec = service.manifest.get("spec") or {}
    found = set()
    for port in spec.get("ports") or []:
        protocol = str(port.get("protocol") or "TCP")
        for address in _addresses(service).values():
            found.add(Claim(str(ip_address(address)), int(port["port"]), protocol))
        if number := int(port.get("nodePort") or 0):
            found.add(Claim("", number, protocol))
    if number := int(spec.get("healthCheckNodePort") or 0):
        found.add(Claim("", number, "TCP"))
    return frozenset(found)


def complaints(
    service: Resource, slices: Sequence[Resource], around: Around, owner: Callable[[Claim], str]
) -> tuple[Complaint, ...]:
    """All that is wrong; *owner*: ``namespace/name`` of an older Service that has what is claimed, or ""."""
    if not is_served(service):
        return ()
    spec: Mapping[str, Any] = service.manifest.get("spec") or {}
    notes = (service.manifest.get("metadata") or {}).get("annotations") or {}
    try:
        return (
            *(
                Complaint("InvalidAnnotation", f'metadata.annotations["{key}"]', f"{says}; it is ignored")
                for key, says in annotation_faults(notes)
            ),
            *_claimed(service, owner),
            *_node_ports(spec, around),
            *_families(service, slices, around),
            *_lost(slices, around),
            *_sctp(spec, slices),
            *_forwarding(notes, around),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        says = f"cannot be understood ({error!r}); nodes go on with the version that they understood last"
        return (Complaint("NotUnderstood", "spec", says),)


def _claimed(service: Resource, owner: Callable[[Claim], str]) -> Iterator[Complaint]:
    for claim in sorted(claims(service)):
        if name := owner(claim):
            yield Complaint(
                "Conflict", str(claim), f"not served there: Service {name}, which is older, has it"
            )


def _node_ports(spec: Mapping[str, Any], around: Around) -> Iterator[Complaint]:
    allowed = around.node_ports
    numbers = {f"spec.ports[{i}].nodePort": port.get("nodePort") for i, port in enumerate(_ports(spec))}
    for path, number in {**numbers, "spec.healthCheckNodePort": spec.get("healthCheckNodePort")}.items():
        if number and int(number) not in allowed:
            says = f"{number} is not in node-port-range {allowed[0]},{allowed[-1]}; it is served all the same"
            yield Complaint("NodePortOutOfRange", path, says)


def _families(service: Resource, slices: Sequence[Resource], around: Around) -> Iterator[Complaint]:
    ready = {
        version: sum(1 for part in slices if _version(part) == version for _ in _ips(part))
        for version in (4, 6)
    }
    for path, address in _addresses(service).items():
        version = ip_address(address).version
        if path.startswith("spec.clusterIP") and version not in around.service_families:
            says = f"{address}: service-cluster-ip-range has no IPv{version} range"
            yield Complaint("FamilyNotOffered", path, says)
        elif ready[version]:
            continue
        elif version not in around.pod_families:
            says = f"{address} refuses connections: no pod has an IPv{version} address"
            yield Complaint("NoBackendOfFamily", path, says)
        elif any(ready.values()):
            says = f"{address} refuses connections: none of its endpoints has an IPv{version} address"
            yield Complaint("NoBackendOfFamily", path, says)


def _lost(slices: Sequence[Resource], around: Around) -> Iterator[Complaint]:
    """Endpoints that no packet gets to."""
    gone: dict[str, list[str]] = {}
    wrong: list[str] = []
    nowhere: list[str] = []
    for part in slices:
        for each in part.manifest.get("endpoints") or []:
            node = each.get("nodeName")
            for text in each.get("addresses") or []:
                address = ip_address(text)
                if node and around.nodes and node not in around.nodes:
                    gone.setdefault(node, []).append(text)
                elif address in around.services:
                    wrong.append(text)
                elif around.ranges is not None and address in around.pools and address not in around.ranges:
                    nowhere.append(text)
    for node, addresses in sorted(gone.items()):
        says = f"{_some(sorted(addresses))} on node {node}, which does not exist: connections to it are lost"
        yield Complaint("EndpointOnUnknownNode", "endpoints", says)
    if wrong:
        says = f"{_some(sorted(wrong))} belongs to Services, not to what could serve: connections are lost"
        yield Complaint("EndpointWithoutRoute", "endpoints", says)
    if nowhere:
        says = f"{_some(sorted(nowhere))} is an address of pods that no node has: connections are lost"
        yield Complaint("EndpointWithoutRoute", "endpoints", says)


def _sctp(spec: Mapping[str, Any], slices: Sequence[Resource]) -> Iterator[Complaint]:
    for i, port in enumerate(_ports(spec)):
        if port.get("protocol") != "SCTP":
            continue
        targets = {
            int(each["port"])
            for part in slices
            for each in part.manifest.get("ports") or []
            if (each.get("name") or "", each.get("protocol")) == (port.get("name") or "", "SCTP")
            and each.get("port")
        }
        for field in ("port", "nodePort"):
            if port.get(field) and targets - {int(port[field])}:
                says = (
                    f"{port[field]} is not served: endpoints listen on {_some(sorted(map(str, targets)))}, "
                    "and SCTP's checksum, which covers ports, cannot be put right"
                )
                yield Complaint("SctpPortDiffers", f"spec.ports[{i}].{field}", says)


def _forwarding(notes: Mapping[str, str], around: Around) -> Iterator[Complaint]:
    key = f"{ANNOTATIONS}forwarding-mode"
    if around.tunnel and notes.get(key) in ("dsr", "hybrid"):
        says = f'"{notes[key]}" {NOT_DIRECT}'
        yield Complaint("ForwardingModeNotPossible", f'metadata.annotations["{key}"]', says)


def _addresses(service: Resource) -> dict[str, str]:
    """By field: the addresses that are the Service's own."""
    spec, status = service.manifest.get("spec") or {}, service.manifest.get("status") or {}
    several = spec.get("clusterIPs") or [spec.get("clusterIP")]
    lists = {
        "spec.clusterIPs": [ip for ip in several if ip and ip != "None"],
        "spec.externalIPs": spec.get("externalIPs") or [],
        "status.loadBalancer.ingress": [
            each["ip"] for each in (status.get("loadBalancer") or {}).get("ingress") or [] if each.get("ip")
        ],
    }
    return {f"{path}[{i}]": str(ip) for path, ips in lists.items() for i, ip in enumerate(ips)}


def _ports(spec: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return spec.get("ports") or []


def _version(part: Resource) -> int:
    return 6 if part.manifest.get("addressType") == "IPv6" else 4


def _ips(part: Resource) -> Iterator[str]:
    for each in part.manifest.get("endpoints") or []:
        yield from each.get("addresses") or []


def _some(words: Sequence[str]) -> str:
    rest = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + rest
