"""Services and EndpointSlices -> what the cluster's DNS answers.  Pure."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from ipaddress import ip_address

from msgspec import Struct

from cirri.lab.objects import labels, spec
from cirri.lab.slices import SERVICE_LABEL
from cirri.model import Resource

DOMAIN = "cluster.local"
TTL_S = 5


class Zone(Struct, frozen=True, kw_only=True):
    """Authoritative data of a DNS server.  Names are lower case, without the final dot."""

    origins: tuple[str, ...]
    """Zones for which an unknown name is NXDOMAIN instead of forwarded."""
    addresses: dict[str, list[str]] = {}
    """Name -> A and AAAA records."""
    services: dict[str, list[tuple[int, str]]] = {}
    """``_port._proto.name`` -> SRV records as (port, target)."""
    aliases: dict[str, str] = {}
    """Name -> CNAME."""
    upstream: str = ""
    """Address of the server that is asked for every other name; "": they are refused."""
    ttl_s: int = TTL_S


def zone(services: Iterable[Resource], slices: Iterable[Resource], upstream: str) -> Zone:
    """Records as the Kubernetes DNS specification (version 1.1) gives them."""
    members: dict[tuple[str, str], list[Resource]] = defaultdict(list)
    for item in slices:
        members[item.namespace, labels(item).get(SERVICE_LABEL, "")].append(item)
    addresses: dict[str, list[str]] = {}
    targets: dict[str, list[tuple[int, str]]] = defaultdict(list)
    aliases: dict[str, str] = {}
    for service in services:
        name = f"{service.name}.{service.namespace}.svc.{DOMAIN}"
        if external := spec(service).get("externalName"):
            aliases[name] = str(external).rstrip(".").lower()
        elif cluster_ips := _cluster_ips(service):
            addresses[name] = cluster_ips
            for port in spec(service).get("ports") or []:
                if port.get("name"):
                    targets[_srv(port["name"], port.get("protocol", "TCP"), name)].append(
                        (port["port"], name)
                    )
        else:
            _headless(name, members[service.namespace, service.name], addresses, targets)
    return Zone(
        origins=(DOMAIN, "in-addr.arpa", "ip6.arpa"),
        addresses={name: sorted(found, key=_order) for name, found in sorted(addresses.items())},
        services={name: sorted(found) for name, found in sorted(targets.items())},
        aliases=dict(sorted(aliases.items())),
        upstream=upstream,
    )


def _cluster_ips(service: Resource) -> list[str]:
    body = spec(service)
    found = body.get("clusterIPs") or ([body["clusterIP"]] if body.get("clusterIP") else [])
    return [ip for ip in found if ip != "None"]


def _headless(
    name: str,
    slices: list[Resource],
    addresses: dict[str, list[str]],
    targets: dict[str, list[tuple[int, str]]],
) -> None:
    for item in slices:
        for endpoint in item.manifest.get("endpoints") or []:
            if (endpoint.get("conditions") or {}).get("ready") is False:
                continue
            for address in endpoint["addresses"]:
                host = f"{endpoint.get('hostname') or _label(address)}.{name}"
                addresses.setdefault(name, []).append(address)
                addresses.setdefault(host, []).append(address)
                for port in item.manifest.get("ports") or []:
                    if port.get("name"):
                        targets[_srv(port["name"], port.get("protocol", "TCP"), name)].append(
                            (port["port"], host)
                        )


def _srv(port: str, protocol: str, name: str) -> str:
    return f"_{port}._{protocol.lower()}.{name}"


def _label(address: str) -> str:
    """A host label for an endpoint without a host name."""
    return hashlib.sha256(address.encode()).hexdigest()[:8]


def _order(address: str) -> tuple[int, bytes]:
    parsed = ip_address(address)
    return parsed.version, parsed.packed
