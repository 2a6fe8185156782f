"""Addresses: ranges cut out of the cluster's pools, and pods' addresses out of a node's ranges.  Pure."""

from cirri.addresses.allocator import AddressesExhausted, AddressTaken, NodeAddresses, Unassignable
from cirri.addresses.config import InvalidPools, Pools, cluster_pools, service_networks
from cirri.addresses.pools import Pool, capacity, free_block

__all__ = [
    "AddressTaken",
    "AddressesExhausted",
    "InvalidPools",
    "NodeAddresses",
    "Pool",
    "Pools",
    "Unassignable",
    "capacity",
    "cluster_pools",
    "free_block",
    "service_networks",
]
