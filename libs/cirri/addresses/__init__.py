"""Addresses: ranges cut out of the cluster's pools, pods' addresses out of a node's ranges, and how packets
get there.  Pure."""

from cirri.addresses.allocator import AddressesExhausted, AddressTaken, NodeAddresses, Unassignable
from cirri.addresses.config import InvalidPools, Pools, cluster_pools, service_networks
from cirri.addresses.masquerading import InvalidMasquerading, Masquerading
from cirri.addresses.pools import Pool, capacity, free_block
from cirri.addresses.routing import InvalidRouting, Routing

__all__ = [
    "AddressTaken",
    "AddressesExhausted",
    "InvalidMasquerading",
    "InvalidPools",
    "InvalidRouting",
    "Masquerading",
    "NodeAddresses",
    "Pool",
    "Pools",
    "Routing",
    "Unassignable",
    "capacity",
    "cluster_pools",
    "free_block",
    "service_networks",
]
