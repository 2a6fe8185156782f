"""Ask servers for the names that policy lets pods ask for, and open the addresses that pods are told.

Reads   the datapath service's socket (rules, selectors, pods), maps cirri_ipcache and cirri_ct
Writes  map cirri_names and the journal of facts, together with the node's other instance
Tells   ``cirri.l7.NODE``: questions and answers
Serves  DNS on UDP and TCP, transparently; ``cirri.dnsproxy.NODE.cache`` and ``.names`` for ``cirri fqdn``
Needs   CAP_NET_ADMIN (other hosts' addresses on its sockets), CAP_BPF

Two instances of it run on a node.  They share the sockets, the journal and the map; either is enough.
"""

from cirri.model import L7_RECORDS
from cirri.runtime.contract import Service

SERVICE = Service(
    "dnsproxy",
    summary="Pods resolve the names that policy allows, and reach what these lead to.",
    scope="node",
    replicas=2,
    maps=("cirri_names",),
    serves=("cache", "names"),
    tells=(L7_RECORDS,),
    capabilities=("NET_ADMIN", "BPF"),
)
