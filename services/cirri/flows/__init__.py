"""Keep what the node's kernel and proxies saw of the network, and say whom it was about.

Reads   maps cirri_events (as its one reader), cirri_event_counters, cirri_origins and
        cirri_origin_spaces; RUN_DIR/rules.json; L7 records;
        endpoints, identities, nodes, resources (Services, the node's Pods, the configuration)
Writes  logs flowlog_forwarded and flowlog_dropped; a ring of rows in memory
Calls   the node's datapath (names behind numbers), dnsproxy (names that pods know) and sensor (processes)
Needs   CAP_BPF (reads maps)

Nobody depends on it: while it is away the kernel's ring keeps the newest events.
"""

from cirri.model import ENDPOINTS, FLOW_LOGS, IDENTITIES, L7_RECORDS, NODES, RESOURCES
from cirri.runtime.contract import Service

NAME_SETS = "cirri.datapath.{node}.name-sets"
NAME_CACHE = "cirri.dnsproxy.{node}.cache"
WHO = "cirri.sensor.{node}.processes"

SERVICE = Service(
    "flows",
    summary="What the network did is known, and whom it was about.",
    scope="node",
    reads=(ENDPOINTS, IDENTITIES, NODES, RESOURCES),
    appends=FLOW_LOGS,
    hears=(L7_RECORDS,),
    calls=(NAME_SETS, NAME_CACHE, WHO),
    capabilities=("BPF",),
)
