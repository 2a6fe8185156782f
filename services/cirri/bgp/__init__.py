"""Tell the routers next to this node which addresses and pod ranges are reached through it.

Reads   resources (the BGP family, Nodes, Services, EndpointSlices, Secrets), podcidrs, nodes
Writes  nothing on the bus's buckets; the node's GoBGP over RUN_DIR/gobgpd.sock
Calls   cirri.kubernetes.apply and delete, for CiliumBGPNodeConfig and the conditions of the others
Needs   nothing of the kernel; GoBGP itself (python -m cirri.bgp.gobgpd) CAP_NET_BIND_SERVICE where it listens

GoBGP is a process of its own: while this service is away its sessions and routes stay as they are.
"""

from cirri.manifests.api import APPLY, DELETE
from cirri.model import NODES, POD_CIDRS, RESOURCES
from cirri.runtime.contract import Companion, Service

PEERS, ROUTES, POLICIES, DRAIN = "peers", "routes", "route-policies", "drain"
"""What can be asked: ``cirri.bgp.NODE.peers``."""

SERVICE = Service(
    "bgp",
    summary="Routers know which addresses of Services and which pods are reached through which node.",
    scope="node",
    reads=(RESOURCES, NODES, POD_CIDRS),
    serves=(PEERS, ROUTES, POLICIES, DRAIN),
    calls=(APPLY, DELETE),
    companions=(
        Companion(
            "gobgpd", ("cirri-gobgpd",), ("NET_BIND_SERVICE",), "speaks BGP, on port 179 where it listens"
        ),
    ),
)
