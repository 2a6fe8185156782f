"""Compile every policy once for the whole cluster.

Reads   resources (NetworkPolicy, CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy, what they name:
        CiliumCIDRGroup, Service, EndpointSlice, and ConfigMap cirri-config), identities
Writes  selectors: the identities that each peer selector selects
        policies: for each identity in use its rules, which name selectors; and a marker that says up to
        which revision of resources everything is in, no further than prefixes have identities
        conditions: of each policy object whether it is valid, and if not, why
Needs   nothing of the kernel; one per cluster

An object that cannot be understood is reported and what it meant before goes on to hold.
"""

from cirri.model import CONDITIONS, IDENTITIES, POLICIES, RESOURCES, SELECTORS
from cirri.runtime import Service

SERVICE = Service(
    "policy",
    "Every identity in use has its compiled policy, and every selector its set of identities.",
    "cluster",
    reads=(RESOURCES, IDENTITIES),
    writes=(SELECTORS, POLICIES, CONDITIONS),
    serves=("status",),
)
