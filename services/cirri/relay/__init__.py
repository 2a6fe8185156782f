"""Tell the flows of the whole cluster over the observer API.

Reads   nodes (where their observers are), resources (the configuration), logs flowlog_forwarded and
        flowlog_dropped (what nodes no longer hold, and nodes that are away)
Writes  nothing
Serves  ``observer.Observer`` on RUN_DIR/hubble-relay.sock and TCP port 4245
Needs   nothing of the kernel; one per cluster

Nobody depends on it: nodes tell their own flows, and what is stored can be read without it.
"""

from cirri.model import FLOW_LOGS, NODES, RESOURCES
from cirri.runtime.contract import Service

SERVICE = Service(
    "relay",
    summary="The flows of all nodes can be asked for and followed in one place.",
    scope="cluster",
    reads=(NODES, RESOURCES),
    replays=FLOW_LOGS,
)
