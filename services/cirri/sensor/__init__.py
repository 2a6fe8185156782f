"""Say which programs run on the node: started by whom, in which pod, with which rights, and how they ended.

Reads   maps cirri_sensor_events (as its one reader) and cirri_sensor_counters; /proc; endpoints, Pods
Writes  map cirri_sensor_scope, programs at the kernel's tracepoints; log runtime_events
Calls   cirri.kubernetes.apply, for the conditions of policies
Needs   CAP_BPF and CAP_PERFMON (tracepoints), CAP_SYS_PTRACE (/proc of others), CAP_DAC_READ_SEARCH (cgroups
        by their numbers), CAP_NET_ADMIN (numbers of network namespaces)

Nobody depends on it: while it is away the kernel's ring keeps what happens, and counts what finds no room.
"""

from cirri.manifests.api import APPLY
from cirri.model import ENDPOINTS, RESOURCES, RUNTIME_LOG
from cirri.model.origins import PROCESSES
from cirri.runtime.contract import Service

SERVICE = Service(
    "sensor",
    summary="Which programs ran is known: who started them, in which pod, and how they ended.",
    scope="node",
    reads=(ENDPOINTS, RESOURCES),
    maps=(
        "cirri_origins",
        "cirri_origin_spaces",
        "cirri_sensor_scope",
        "cirri_sensor_policies",
        "cirri_sensor_events",
        "cirri_sensor_counters",
    ),
    serves=("policies", PROCESSES),
    calls=(APPLY,),
    appends=(RUNTIME_LOG,),
    capabilities=("BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH", "NET_ADMIN"),
)
