"""Have the node's Envoy decide on requests as the policy of the node's pods says, and tell what it saw.

Reads   resources (Secrets); the datapath service's NodeProxies over RUN_DIR/proxies.sock; map cirri_ipcache
Writes  nothing on the bus's buckets; Envoy's configuration over RUN_DIR/xds.sock; tells L7 records
Needs   CAP_BPF (reads the map); Envoy itself (python -m cirri.l7proxy.envoy) CAP_NET_ADMIN and CAP_NET_RAW

Envoy is a process of its own: while this service is away it goes on with what it was told last.
"""

from cirri.model import L7_RECORDS, RESOURCES
from cirri.runtime.contract import Companion, Service

LISTENERS, RULES = "listeners", "rules"
"""What can be asked: ``cirri.l7proxy.NODE.listeners``."""

SERVICE = Service(
    "l7proxy",
    summary="Envoy lets pass the requests that the policy of the node's pods allows, and no others.",
    scope="node",
    reads=(RESOURCES,),
    serves=(LISTENERS, RULES),
    tells=(L7_RECORDS,),
    capabilities=("BPF",),
    companions=(
        Companion(
            "envoy",
            ("cirri-envoy",),
            ("NET_ADMIN", "NET_RAW"),
            "decides on requests: takes connections that are for others, and speaks with clients' addresses",
        ),
    ),
)
