"""Find out whether this node reaches every other one, and answer those that ask.

Reads   nodes (who there is, under which addresses), resources (Nodes that still exist, the configuration)
Writes  health: its own view of the others
Serves  ``GET /hello`` on TCP port 4240 of the node
Needs   CAP_NET_RAW (ICMP echo)

Nobody depends on it: it is for people (``cirri status``, ``cirri health status``) and for metrics.
"""

from cirri.model import HEALTH, NODES, RESOURCES
from cirri.runtime.contract import Service

SERVICE = Service(
    "health",
    summary="Whether each node reaches every other one is known, and since when.",
    scope="node",
    reads=(RESOURCES, NODES),
    writes=(HEALTH,),
    capabilities=("NET_RAW",),
)
