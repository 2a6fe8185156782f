"""Addresses of Services: honoured, kept, or chosen; never given twice.  Pure.

Follows Kubernetes: the first part of a range is left to addresses that manifests name (KEP-3070),
and an address stays with its Service for as long as the Service lives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from cirri.errors import CirriError
from cirri.kubernetes.state import State, with_parts
from cirri.model import Resource

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
HEADLESS = "None"
_OWNED = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")


class AddressRefused(CirriError):
    """A Service cannot have the addresses it asks for."""

    def __init__(self, field: str, why: str) -> None:
        self.field, self.why = field, why
        super().__init__(f"spec.{field}: {why}")


def taken(state: State) -> dict[str, str]:
    """Every Service address in *state* and the ``namespace/name`` that has it."""
    return {
        address: f"{resource.namespace}/{resource.name}"
        for key, resource in state.items()
        if key.kind == "Service"
        for address in resource.manifest["spec"].get("clusterIPs", ())
        if address != HEADLESS
    }


def requested(service: Resource) -> list[str]:
    """The addresses that a manifest names, as written."""
    spec = service.manifest["spec"]
    return [a for a in spec.get("clusterIPs") or [spec.get("clusterIP", "")] if a]


def with_addresses(
    service: Resource, old: Resource | None, used: Mapping[str, str], ranges: Sequence[Network]
) -> Resource:
    """*service* with clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy filled in.

    *old* is the Service as it was, *used* the addresses of all others.  Raises :class:`AddressRefused`.
    """
    spec = service.manifest["spec"]
    before: dict[str, Any] = old.manifest["spec"] if old is not None else {}
    if spec["type"] == "ExternalName":
        return with_parts(service, spec={k: v for k, v in spec.items() if k not in _OWNED})
    wanted = requested(service)
    held: list[str] = list(before.get("clusterIPs", ()))
    if wanted and held and _text(wanted[0]) != held[0]:
        raise AddressRefused("clusterIP", f'cannot change from "{held[0]}"; delete the Service first')
    headless = (wanted or held)[:1] == [HEADLESS]
    policy, families = _families(spec, before, wanted, ranges)
    addresses = [HEADLESS]
    if not headless:
        addresses = _addresses(service, families, wanted, held, used=used, ranges=ranges)
    owned = {
        "clusterIP": addresses[0],
        "clusterIPs": addresses,
        "ipFamilies": list(families),
        "ipFamilyPolicy": policy,
    }
    return with_parts(service, spec={**spec, **owned})


def _families(
    spec: Mapping[str, Any], before: Mapping[str, Any], wanted: Sequence[str], ranges: Sequence[Network]
) -> tuple[str, list[str]]:
    """The policy in effect and the families, in order."""
    offered = [f"IPv{network.version}" for network in ranges]
    named = [f"IPv{ip_address(a).version}" for a in wanted if a != HEADLESS]
    families = spec.get("ipFamilies") or named or before.get("ipFamilies") or offered[:1]
    policy = spec.get("ipFamilyPolicy") or before.get("ipFamilyPolicy") or "SingleStack"
    if len(set(families)) < len(families):
        raise AddressRefused("ipFamilies", f"names {families[0]} twice")
    for family, address in zip(families, named, strict=False):
        if family != address:
            raise AddressRefused("ipFamilies", f"says {family} where clusterIPs has an {address} address")
    if policy == "SingleStack":
        if len(spec.get("ipFamilies", ())) > 1 or len(named) > 1:
            raise AddressRefused(
                "ipFamilyPolicy", "two families need PreferDualStack or RequireDualStack, not SingleStack"
            )
        families = families[:1]
    else:
        families = [*families, *(f for f in offered if f not in families)]
    for family in families:
        if family not in offered:
            raise AddressRefused("ipFamilies", f"service-cluster-ip-range has no {family} range")
    if policy == "RequireDualStack" and len(families) < 2:
        raise AddressRefused(
            "ipFamilyPolicy", f"RequireDualStack: service-cluster-ip-range has {offered[0]} only"
        )
    return policy, families


def _addresses(
    service: Resource,
    families: Sequence[str],
    wanted: Sequence[str],
    held: Sequence[str],
    *,
    used: Mapping[str, str],
    ranges: Sequence[Network],
) -> list[str]:
    by_family = {f"IPv{network.version}": network for network in ranges}
    kept = {f"IPv{ip_address(a).version}": a for a in held if a != HEADLESS}
    addresses = []
    for i, family in enumerate(families):
        network = by_family[family]
        if i < len(wanted):
            address = _text(wanted[i])
            if address != kept.get(family):
                _allowed(address, network, used)
        else:
            address = kept.get(family) or choose(network, used, f"{service.namespace}/{service.name}")
        addresses.append(address)
    return addresses


def _allowed(text: str, network: Network, used: Mapping[str, str]) -> None:
    address = ip_address(text)
    if address not in network or int(address) in (_first(network) - 1, _last(network) + 1):
        raise AddressRefused("clusterIP", f'"{text}" is not an address of service-cluster-ip-range {network}')
    if text in used:
        raise AddressRefused("clusterIP", f'"{text}" already belongs to Service {used[text]}')


def choose(network: Network, used: Mapping[str, str], name: str) -> str:
    """A free address of *network* for the Service *name*: the same one whenever it is free.

    Raises :class:`AddressRefused` when all are in use.
    """
    first, last = _first(network), _last(network)
    size = last - first + 1
    reserved = min(max(16, size // 16), 256, size // 2)
    dynamic = size - reserved
    start = int.from_bytes(sha256(name.encode()).digest()[:8], "big") % dynamic
    for band, length, offset in ((first + reserved, dynamic, start), (first, reserved, 0)):
        for step in range(min(length, len(used) + 1)):
            address = str(_address(network, band + (offset + step) % length))
            if address not in used:
                return address
    raise AddressRefused("clusterIP", f"service-cluster-ip-range {network} is exhausted")


def _first(network: Network) -> int:
    return int(network.network_address) + 1


def _last(network: Network) -> int:
    return int(network.broadcast_address) - (1 if network.version == 4 else 0)


def _address(network: Network, number: int) -> Address:
    return IPv4Address(number) if network.version == 4 else IPv6Address(number)


def _text(address: str) -> str:
    return address if address == HEADLESS else str(ip_address(address))
