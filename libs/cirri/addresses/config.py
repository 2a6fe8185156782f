"""The cluster's pools as its configuration states them, and which changes of them are allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from cirri.addresses.pools import Network, Pool, overlapping
from cirri.errors import CirriError

DEFAULTS = {
    "cluster-pool-ipv4-cidr": "10.52.0.0/16",
    "cluster-pool-ipv4-mask-size": "24",
    "cluster-pool-ipv6-cidr": "fd00:10:52::/104",
    "cluster-pool-ipv6-mask-size": "120",
    "service-cluster-ip-range": "10.96.0.0/16,fd00:10:96::/112",
}
"""Keys of ConfigMap ``kube-system/cirri-config`` and what holds where they are absent.  An empty
pool switches its family off."""

SERVICE_RANGES = "service-cluster-ip-range"

MAX_BLOCK_BITS = 16
"""A node's block has at most 65536 addresses: they are counted one by one."""


class InvalidPools(CirriError):
    """The configured pools cannot be used; the last good ones go on to hold."""

    hint = "Correct ConfigMap kube-system/cirri-config"

    def __init__(self, key: str, value: str, why: str) -> None:
        self.key = key
        self.value = value
        self.why = why
        super().__init__(f"{key}: {value!r}: {why}")


@dataclass(frozen=True, slots=True)
class Pools:
    """Pod pools of both families, and the ranges that they must stay clear of."""

    ipv4: Pool
    ipv6: Pool
    services: tuple[Network, ...] = ()

    @property
    def enabled(self) -> tuple[Pool, ...]:
        """The pools that have a prefix, IPv4 first."""
        return tuple(pool for pool in (self.ipv4, self.ipv6) if pool.cidrs)


def cluster_pools(data: Mapping[str, str], *, before: Pools | None = None) -> Pools:
    """Pools of the ConfigMap's *data*; *before* are those in force.

    Raises InvalidPools: syntax, overlaps, or a change that takes a range back from its nodes.
    """
    pools = Pools(
        _pool(4, data, "cluster-pool-ipv4-cidr", "cluster-pool-ipv4-mask-size"),
        _pool(6, data, "cluster-pool-ipv6-cidr", "cluster-pool-ipv6-mask-size"),
        service_networks(data),
    )
    _refuse_overlaps(pools, data)
    if before is not None:
        _refuse_edits(before.ipv4, pools.ipv4, data, "cluster-pool-ipv4")
        _refuse_edits(before.ipv6, pools.ipv6, data, "cluster-pool-ipv6")
    return pools


def service_networks(data: Mapping[str, str]) -> tuple[Network, ...]:
    """The ranges of Service addresses, in order.  Raises InvalidPools."""
    return tuple(_networks(data, SERVICE_RANGES, None))


def _pool(version: int, data: Mapping[str, str], cidr_key: str, mask_key: str) -> Pool:
    cidrs = tuple(_networks(data, cidr_key, version))
    text = _value(data, mask_key)
    bits = 32 if version == 4 else 128
    if not text.isdecimal() or not bits - MAX_BLOCK_BITS <= int(text) <= bits - 2:
        why = f"the mask size is a number from {bits - MAX_BLOCK_BITS} to {bits - 2}"
        raise InvalidPools(mask_key, text, why)
    for cidr in cidrs:
        if cidr.prefixlen > int(text):
            why = f"{cidr} is smaller than one node's block (/{text})"
            raise InvalidPools(cidr_key, _value(data, cidr_key), why)
    return Pool(version, cidrs, int(text))


def _networks(data: Mapping[str, str], key: str, version: int | None) -> Iterable[Network]:
    text = _value(data, key)
    for part in text.replace(",", " ").split():
        try:
            network = ip_network(part)
        except ValueError as error:
            raise InvalidPools(key, text, str(error)) from error
        if version not in {None, network.version}:
            raise InvalidPools(key, text, f"{part} is not an IPv{version} prefix")
        yield network


def _refuse_overlaps(pools: Pools, data: Mapping[str, str]) -> None:
    for key, pool in (("cluster-pool-ipv4-cidr", pools.ipv4), ("cluster-pool-ipv6-cidr", pools.ipv6)):
        if pair := overlapping(pool.cidrs):
            raise InvalidPools(key, _value(data, key), f"{pair[0]} and {pair[1]} overlap")
        for cidr in pool.cidrs:
            for service in pools.services:
                if cidr.version == service.version and cidr.overlaps(service):
                    why = f"{cidr} overlaps the service range {service}"
                    raise InvalidPools(key, _value(data, key), why)


def _refuse_edits(before: Pool, after: Pool, data: Mapping[str, str], key: str) -> None:
    gone = [cidr for cidr in before.cidrs if cidr not in after.cidrs]
    if gone:
        listed = ", ".join(map(str, gone))
        why = f"{listed} cannot be changed or removed, nodes may use it: only add to the list"
        raise InvalidPools(f"{key}-cidr", _value(data, f"{key}-cidr"), why)
    if before.cidrs and before.mask_size != after.mask_size:
        why = f"the mask size cannot be changed while the pool is in use; it is {before.mask_size}"
        raise InvalidPools(f"{key}-mask-size", _value(data, f"{key}-mask-size"), why)


def _value(data: Mapping[str, str], key: str) -> str:
    return data.get(key, DEFAULTS[key])
