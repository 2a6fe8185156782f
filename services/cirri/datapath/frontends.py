"""Services and their backends: what the socket programs must know.  Pure.

Source: Kubernetes API, Service v1 and EndpointSlice discovery.k8s.io/v1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from cirri.layout import LbBackend, LbServiceKey, address16
from cirri.model import Resource

SERVICE_NAME = "kubernetes.io/service-name"
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}

Backends = tuple[LbBackend, ...]
Frontends = Mapping[LbServiceKey, Backends]


def service_of(endpoint_slice: Resource) -> tuple[str, str]:
    """(namespace, name) of the Service whose backends a slice lists; "" if it names none."""
    metadata = endpoint_slice.manifest.get("metadata") or {}
    return endpoint_slice.namespace, str((metadata.get("labels") or {}).get(SERVICE_NAME) or "")


def frontends(service: Resource, slices: Iterable[Resource]) -> Frontends:
    """Every ClusterIP and port of *service* with its ready backends, sorted.

    A Service without ready backends has an empty tuple: connections to it fail at once
    instead of leaving the node.
    """
    spec: dict[str, Any] = service.manifest.get("spec") or {}
    slices = list(slices)
    result: dict[LbServiceKey, Backends] = {}
    for address in _cluster_ips(spec):
        for port in spec.get("ports") or []:
            protocol = str(port.get("protocol") or "TCP")
            key = LbServiceKey(
                address=address16(address), port=int(port["port"]), protocol=PROTOCOLS[protocol]
            )
            result[key] = _backends(slices, str(port.get("name") or ""), protocol, _family(address))
    return result


def _cluster_ips(spec: Mapping[str, Any]) -> list[str]:
    ips = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return [str(ip) for ip in ips if ip and ip != "None"]


def _backends(slices: Iterable[Resource], port_name: str, protocol: str, family: str) -> Backends:
    found: set[tuple[bytes, int]] = set()
    for item in slices:
        if (item.manifest.get("addressType") or "IPv4") != family:
            continue
        ports = [
            int(port["port"])
            for port in item.manifest.get("ports") or []
            if str(port.get("name") or "") == port_name
            and str(port.get("protocol") or "TCP") == protocol
            and port.get("port")
        ]
        for endpoint in item.manifest.get("endpoints") or []:
            if _takes_traffic(endpoint.get("conditions") or {}):
                found.update(
                    (address16(str(a)), port) for a in endpoint.get("addresses") or [] for port in ports
                )
    return tuple(LbBackend(address=address, port=port) for address, port in sorted(found))


def _takes_traffic(conditions: Mapping[str, Any]) -> bool:
    """Unknown readiness counts as ready (the API's rule); a terminating endpoint is on its way out."""
    return conditions.get("ready") is not False and not conditions.get("terminating")


def _family(address: str) -> str:
    return f"IPv{ip_address(address).version}"
