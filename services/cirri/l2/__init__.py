"""Answer for addresses of Services on the node's segment, each by one node of the cluster.

Reads   resources (Services, EndpointSlices, Nodes, CiliumL2AnnouncementPolicies, the configuration),
        announcers (who lives)
Writes  announcers: that this node lives, and what a person wants of it; maps cirri_l2_responder and
        cirri_l2_peers; announcements (gratuitous ARP, unsolicited neighbour advertisements) on the wire
Calls   cirri.kubernetes.apply, for the conditions of policies
Needs   CAP_BPF, CAP_NET_RAW (announcements, questions), CAP_SYS_NICE (beats are not to wait for others);
        one per node

Answers come from the kernel, with or without this process (bpf/lib/l2.h).
"""

from cirri.manifests.api import APPLY
from cirri.model import ANNOUNCERS, RESOURCES
from cirri.runtime import Service

SERVICE = Service(
    "l2",
    "Each address that policies want announced on the segment is answered for by one living node.",
    "node",
    reads=(RESOURCES, ANNOUNCERS),
    writes=(ANNOUNCERS,),
    maps=("cirri_l2_peers", "cirri_l2_responder"),
    serves=("status", "explain", "move", "release", "drain", "undrain"),
    calls=(APPLY,),
    capabilities=("BPF", "NET_RAW", "SYS_NICE"),
)
