"""Give each set of identity-relevant labels one number, for as long as something has it.

Reads   resources (ConfigMap cirri-config, the labels of Nodes, where the API server is), endpoints (who
        has which labels), nodes (their addresses), selectors (address prefixes that policies tell apart), and
        identities, its own bucket, for what another instance may have written
Writes  identities: by compare-and-set along each label set's own sequence of numbers, so that two
        instances that race for a set end at the same number
Needs   nothing of the kernel; one per cluster

A number is released some seconds after its last use.  It survives restarts in the bucket; when
the bucket is lost, endpoints report the numbers that they have in force and get them again, and
prefixes and nodes come to the same ones, since everybody tries in the same order.
"""

from cirri.model import ENDPOINTS, IDENTITIES, NODES, RESOURCES, SELECTORS
from cirri.runtime import Service

SERVICE = Service(
    "identity",
    "Every label set in use has exactly one number.",
    "cluster",
    reads=(RESOURCES, ENDPOINTS, NODES, SELECTORS, IDENTITIES),
    writes=(IDENTITIES,),
    serves=("status",),
)
