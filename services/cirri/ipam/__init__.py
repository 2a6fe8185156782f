"""Give each node ranges of pod addresses out of the cluster's pools, and LoadBalancer Services addresses.

Reads   resources (Nodes, the pools in ConfigMap cirri-config; Services, Namespaces and their
        CiliumLoadBalancerIPPools), nodes (ranges in force, and how full they are)
Writes  podcidrs: for each node its ranges; the list grows, its entries never change
Calls   cirri.kubernetes.apply, for the statuses of Services and of their pools
Needs   nothing of the kernel; one per cluster

A node gets its first range when it has reported itself, so that one that still has ranges from
before the bucket was lost gets these again.  It loses them when its Node object is deleted.
"""

from cirri.manifests.api import APPLY
from cirri.model import NODES, POD_CIDRS, RESOURCES
from cirri.runtime import Service

SERVICE = Service(
    "ipam",
    "Every node has ranges of pod addresses of its own, and every Service the address that it asks for.",
    "cluster",
    reads=(RESOURCES, NODES),
    writes=(POD_CIDRS,),
    serves=("status",),
    calls=(APPLY,),
)
