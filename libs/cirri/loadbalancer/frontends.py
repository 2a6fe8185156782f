"""From a Service to the frontends that one node serves.  Pure.

A frontend is an address, a port, a protocol and a scope; what traffic policies, topology and node
selectors mean on this node is decided here, so that programs need to know nothing of them.

Source: Kubernetes API, Service v1; names of annotations as Cilium has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Literal, NamedTuple

from cirri.loadbalancer.config import Algorithm, LoadBalancerConfig
from cirri.loadbalancer.endpoints import Backend, backends, plain_address, version_of
from cirri.model import NodeStatus, Resource

Kind = Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalIPs", "HostPort"]
Network = IPv4Network | IPv6Network

ANNOTATIONS = "service.cilium.io/"
WEIGHTS = "service.cirri.io/weights"
"""``NAME=WEIGHT`` separated by commas; NAME is a backend's address or its node's name."""
PROXY_NAME = "service.kubernetes.io/service-proxy-name"
"""A Service with this label is somebody else's."""
ENDED = ("Succeeded", "Failed")
"""Phases of a Pod that has given up its addresses, whatever its status lists."""
ZONE = "topology.kubernetes.io/zone"
"""Label of a Node object."""
EVERY_KIND = frozenset(("ClusterIP", "NodePort", "LoadBalancer", "ExternalIPs"))
"""Kinds of frontends that annotation ``service.cilium.io/type`` chooses among."""
AFFINITY_S = 10800
"""Of sessionAffinity where the Service names no time."""


class Scope(IntEnum):
    """Who asks, as ``enum lb_scope`` in bpf/lib/lb.h."""

    INTERNAL = 0
    """Sockets and pods of this node."""
    EXTERNAL = 1
    """What comes from the wire."""


class Frontend(NamedTuple):
    """What clients connect to."""

    address: str
    port: int
    protocol: str
    scope: Scope


class Serving(NamedTuple):
    """How a frontend is served on this node."""

    kind: Kind
    namespace: str
    name: str
    backends: tuple[Backend, ...]
    algorithm: Algorithm = "random"
    dsr: bool = False
    """A packet for another node keeps its source, and is answered from there directly."""
    affinity_s: int = 0
    """Seconds for which a client keeps its backend after its last connection; 0: no affinity."""
    ranges: tuple[Network, ...] = ()
    """Sources, of the frontend's family, that are let in, or with *ranges_deny* that are not."""
    ranges_deny: bool = False
    guarded: bool = False
    """Whether *ranges* are asked at all: a list without a range of this family lets nobody in."""
    elsewhere: bool = False
    """Only other nodes may serve it: whoever asks here gets no answer, and tries another node."""


@dataclass(frozen=True, slots=True)
class Here:
    """What of this node matters."""

    node: str
    zone: str = ""
    labels: Mapping[str, str] | None = None
    addresses: tuple[str, ...] = ()
    """Its own, on which node ports are served."""
    others: tuple[str, ...] = ()
    """Addresses of the other nodes."""

    @classmethod
    def of(cls, node: str, node_object: Resource | None, statuses: Iterable[NodeStatus]) -> Here:
        """From the Node object, which may not be there, and what every node says of itself."""
        metadata = (node_object.manifest.get("metadata") or {}) if node_object is not None else {}
        labels = {str(key): str(value) for key, value in (metadata.get("labels") or {}).items()}
        own: tuple[str, ...] = ()
        others: list[str] = []
        for status in statuses:
            if status.node == node:
                own = status.addresses
            else:
                others += status.addresses
        return cls(node, labels.get(ZONE, ""), labels, own, tuple(sorted(others)))


def frontends(
    service: Resource, slices: Sequence[Resource], here: Here, config: LoadBalancerConfig
) -> dict[Frontend, Serving]:
    """Every frontend of *service* that *here* serves, with the backends that hold there."""
    return dict(_Expansion(service, slices, here, config).all()) if is_served(service) else {}


class Seniority(NamedTuple):
    """Where several Services ask for one address and port, the least of these has it, everywhere."""

    created: str
    """RFC 3339, UTC."""
    namespace: str
    name: str


def seniority(service: Resource) -> Seniority:
    """That of *service*: the oldest comes first, so that nobody new takes anything away."""
    created = str((service.manifest.get("metadata") or {}).get("creationTimestamp") or "")
    return Seniority(created, service.namespace, service.name)


def is_served(service: Resource) -> bool:
    """Whether *service* has frontends at all, and nobody else serves it."""
    spec: Mapping[str, Any] = service.manifest.get("spec") or {}
    metadata = service.manifest.get("metadata") or {}
    if spec.get("type") == "ExternalName" or spec.get("clusterIP") == "None":
        return False
    return PROXY_NAME not in (metadata.get("labels") or {})


def answers_outside(service: Resource, here: Here) -> bool:
    """Whether *here* serves what clients outside connect to: annotations may name other nodes."""
    return _answers((service.manifest.get("metadata") or {}).get("annotations") or {}, here)


class _Expansion:
    def __init__(
        self, service: Resource, slices: Sequence[Resource], here: Here, config: LoadBalancerConfig
    ) -> None:
        metadata = service.manifest.get("metadata") or {}
        self.service, self.slices, self.here, self.config = service, slices, here, config
        self.spec: dict[str, Any] = service.manifest.get("spec") or {}
        self.status: dict[str, Any] = service.manifest.get("status") or {}
        self.notes: dict[str, str] = metadata.get("annotations") or {}
        self.weights = weights(self.notes[WEIGHTS]) if WEIGHTS in self.notes else {}
        self._found: dict[tuple[Any, ...], tuple[Backend, ...]] = {}
        """Backends by what decides about them: a node port has them at each address of each node."""

    def all(self) -> Iterator[tuple[Frontend, Serving]]:
        kinds = kinds_of(self.notes.get(f"{ANNOTATIONS}type", ""))
        for port in self.spec.get("ports") or []:
            if "ClusterIP" in kinds:
                yield from self._inside(port)
            if _answers(self.notes, self.here):
                yield from self._outside(port, kinds)

    def _inside(self, port: Mapping[str, Any]) -> Iterator[tuple[Frontend, Serving]]:
        local = self.spec.get("internalTrafficPolicy") == "Local"
        for address in cluster_ips(self.spec):
            yield self._one("ClusterIP", address, int(port["port"]), port, Scope.INTERNAL, local=local)

    def _outside(self, port: Mapping[str, Any], kinds: frozenset[str]) -> Iterator[tuple[Frontend, Serving]]:
        local = self.spec.get("externalTrafficPolicy") == "Local"
        number = int(port["port"])
        virtual: dict[Kind, list[str]] = {
            "LoadBalancer": ingress(self.spec, self.status),
            "ExternalIPs": self.spec.get("externalIPs") or [],
        }
        for kind, addresses in virtual.items():
            for address in addresses if kind in kinds else ():
                yield self._one(kind, address, number, port, Scope.EXTERNAL, local=local)
                # Clients in the cluster take the short way to any backend.
                yield self._one(kind, address, number, port, Scope.INTERNAL, local=False)
        if (number := int(port.get("nodePort") or 0)) and "NodePort" in kinds:
            families = _families(self.spec)
            for address in self.here.addresses:
                if version_of(address) in families:
                    yield self._one("NodePort", address, number, port, Scope.EXTERNAL, local=local)
            for address in (*self.here.addresses, *self.here.others):
                if version_of(address) in families:
                    yield self._one("NodePort", address, number, port, Scope.INTERNAL, local=False)

    def _one(
        self, kind: Kind, address: str, number: int, port: Mapping[str, Any], scope: Scope, *, local: bool
    ) -> tuple[Frontend, Serving]:
        protocol = str(port.get("protocol") or "TCP")
        version = version_of(address)
        found = self._backends(port, protocol, version, local=local)
        serving = Serving(
            kind,
            self.service.namespace,
            self.service.name,
            found,
            _algorithm(self.notes, self.config),
            scope is Scope.EXTERNAL and _dsr(self.notes, self.config, protocol),
            _affinity(self.spec),
            elsewhere=local and not found and bool(self._backends(port, protocol, version, local=False)),
        )
        guarded = scope is Scope.EXTERNAL and (kind == "LoadBalancer" or self.config.ranges_of_all_types)
        if guarded and (ranges := self.spec.get("loadBalancerSourceRanges")):
            networks = (ip_network(text, strict=False) for text in ranges)
            serving = serving._replace(
                ranges=tuple(one for one in networks if one.version == version),
                ranges_deny=self.notes.get(f"{ANNOTATIONS}src-ranges-policy") == "deny",
                guarded=True,
            )
        return Frontend(plain_address(address), number, protocol, scope), serving

    def _backends(
        self, port: Mapping[str, Any], protocol: str, version: int, *, local: bool
    ) -> tuple[Backend, ...]:
        name = str(port.get("name") or "")
        if (found := self._found.get(asked := (name, protocol, version, local))) is None:
            found = self._found[asked] = backends(
                self.slices,
                name,
                protocol,
                version,
                node=self.here.node,
                zone=self.here.zone,
                only_local=local,
                weights=self.weights,
            )
        return found


def host_ports(pods: Iterable[Resource], here: Here) -> dict[Frontend, Serving]:
    """The host ports of *pods*, which run on this node; of two that ask for one, the first by name has it."""
    found: dict[Frontend, Serving] = {}
    for pod in sorted(pods, key=lambda each: (each.namespace, each.name)):
        spec, status = pod.manifest.get("spec") or {}, pod.manifest.get("status") or {}
        if spec.get("hostNetwork") or status.get("phase") in ENDED:
            continue
        own = [str(each["ip"]) for each in status.get("podIPs") or []]
        for container in spec.get("containers") or []:
            for port in container.get("ports") or []:
                if port.get("hostPort"):
                    for frontend, serving in _host_port(pod, port, own, here):
                        found.setdefault(frontend, serving)
    return found


def _host_port(
    pod: Resource, port: Mapping[str, Any], own: Sequence[str], here: Here
) -> Iterator[tuple[Frontend, Serving]]:
    asked = str(port.get("hostIP") or "")
    every = asked in ("", "0.0.0.0", "::")  # noqa: S104 - what the manifest says, not what we bind to
    for address in here.addresses if every else (asked,):
        version = ip_address(address).version
        if asked in ("0.0.0.0", "::") and ip_address(asked).version != version:  # noqa: S104
            continue
        for backend in own:
            if ip_address(backend).version == version:
                one = Backend(str(ip_address(backend)), int(port["containerPort"]), here.node)
                serving = Serving("HostPort", pod.namespace, pod.name, (one,))
                for scope in (Scope.INTERNAL,) if ip_address(address).is_loopback else Scope:
                    protocol = str(port.get("protocol") or "TCP")
                    yield Frontend(str(ip_address(address)), int(port["hostPort"]), protocol, scope), serving


def weights(text: str) -> dict[str, int]:
    """The value of annotation :data:`WEIGHTS`; a part that cannot be understood is left out."""
    found = {}
    for part in text.split(","):
        name, equals, number = part.strip().rpartition("=")
        if equals and name and number.isdecimal() and int(number) <= 255:
            found[name.strip()] = int(number)
    return found


def kinds_of(annotation: str) -> frozenset[str]:
    """The kinds of frontends that annotation ``service.cilium.io/type`` lets a Service have."""
    if not annotation:
        return EVERY_KIND
    return frozenset(part.strip() for part in annotation.split(",") if part.strip()) or EVERY_KIND


def _answers(notes: Mapping[str, str], here: Here) -> bool:
    """Whether this node serves what clients outside connect to."""
    if node := notes.get(f"{ANNOTATIONS}node"):
        return node == here.node
    if selector := notes.get(f"{ANNOTATIONS}node-selector"):
        labels = here.labels or {}
        pairs = (part.strip().partition("=") for part in selector.split(",") if part.strip())
        return all(key in labels and (not equals or labels[key] == value) for key, equals, value in pairs)
    return True


def cluster_ips(spec: Mapping[str, Any]) -> list[str]:
    """The Service's own addresses, inside the cluster."""
    ips = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return [str(ip) for ip in ips if ip and ip != "None"]


def _families(spec: Mapping[str, Any]) -> set[int]:
    return set(map(version_of, cluster_ips(spec))) or {4, 6}


def ingress(spec: Mapping[str, Any], status: Mapping[str, Any]) -> list[str]:
    """The addresses of a LoadBalancer Service to which packets come as they were sent."""
    if spec.get("type") != "LoadBalancer":
        return []
    given = (status.get("loadBalancer") or {}).get("ingress") or []
    return [str(each["ip"]) for each in given if each.get("ip") and each.get("ipMode", "VIP") == "VIP"]


def _algorithm(notes: Mapping[str, str], config: LoadBalancerConfig) -> Algorithm:
    asked = notes.get(f"{ANNOTATIONS}lb-algorithm")
    return asked if asked in ("random", "maglev") else config.algorithm  # type: ignore[return-value]


def _dsr(notes: Mapping[str, str], config: LoadBalancerConfig, protocol: str) -> bool:
    """A node answers only in the name of frontends that it knows: all nodes have to have them."""
    if notes.get(f"{ANNOTATIONS}node") or notes.get(f"{ANNOTATIONS}node-selector"):
        return False
    mode = notes.get(f"{ANNOTATIONS}forwarding-mode") or config.mode
    return mode == "dsr" or (mode == "hybrid" and protocol == "TCP")


def _affinity(spec: Mapping[str, Any]) -> int:
    if spec.get("sessionAffinity") != "ClientIP":
        return 0
    client = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
    return int(client.get("timeoutSeconds") or AFFINITY_S)
