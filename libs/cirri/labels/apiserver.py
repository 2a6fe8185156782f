"""The API server as a peer: where it is, and the labels of one outside the cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from cirri.labels.label import canonical
from cirri.labels.numbers import Reserved
from cirri.labels.prefixes import prefix_labels
from cirri.model import Resource

SERVICE, SERVICE_NAMESPACE = "kubernetes", "default"
"""The Service that leads to it."""

_SERVICE_LABEL = "kubernetes.io/service-name"


def api_server_addresses(slices: Iterable[Resource]) -> frozenset[str]:
    """Addresses of the API server, ready or not, from those of *slices* that are its Service's."""
    return frozenset(str(one) for each in slices if _leads_there(each) for one in _addresses(each))


def api_server_labels(address: str) -> tuple[str, ...]:
    """Labels of an API server at *address*, which is no node's, sorted.  Raises ValueError."""
    return canonical((*prefix_labels(ip_network(address)), Reserved.KUBE_APISERVER.label))


def _leads_there(one: Resource) -> bool:
    metadata: dict[str, Any] = one.manifest.get("metadata") or {}
    name = (metadata.get("labels") or {}).get(_SERVICE_LABEL)
    return (one.namespace, name) == (SERVICE_NAMESPACE, SERVICE)


def _addresses(one: Resource) -> Iterator[IPv4Address | IPv6Address]:
    for endpoint in one.manifest.get("endpoints") or ():
        for text in endpoint.get("addresses") or ():
            try:
                yield ip_address(text)
            except ValueError:
                continue  # addressType FQDN
