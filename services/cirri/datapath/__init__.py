"""Keep one node's kernel equal to what the cluster wants: pods' devices, addresses, policy, Services.

Reads   resources (Pods of its node, Namespaces, Nodes, Services, EndpointSlices, the configuration),
        identities, policies, selectors, endpoints and nodes of everybody, its ranges in podcidrs
Writes  the pinned maps; its shard of endpoints, nodes and acks
Serves  container runtimes, through ``cirri-cni`` on the socket RUN_DIR/cni.sock;
        the node's proxies on RUN_DIR/proxies.sock;
        ``endpoint-config`` on the bus: how one endpoint is treated; ``name-sets``: numbers for sets of names
Needs   CAP_BPF and CAP_PERFMON (programs), CAP_NET_ADMIN (devices), CAP_SYS_ADMIN (pods' namespaces)

Forwarding state lives in pinned maps and attached programs: without this process, and without the
bus, all that is realized goes on.
"""

from cirri.model import ACKS, ENDPOINTS, IDENTITIES, NODES, POD_CIDRS, POLICIES, RESOURCES, SELECTORS
from cirri.runtime.contract import Service

SERVICE = Service(
    "datapath",
    summary="The node's kernel forwards and enforces what the cluster wants",
    scope="node",
    reads=(RESOURCES, IDENTITIES, POLICIES, SELECTORS, ENDPOINTS, NODES, POD_CIDRS),
    writes=(ENDPOINTS, NODES, ACKS),
    serves=("endpoint-config", "name-sets"),
    maps=(
        "cirri_ct",
        "cirri_dsr",
        "cirri_endpoint_memos",
        "cirri_endpoints",
        "cirri_event_counters",
        "cirri_events",
        "cirri_fragments",
        "cirri_hops",
        "cirri_ipcache",
        "cirri_lb_affinity",
        "cirri_lb_alive",
        "cirri_lb_backends",
        "cirri_lb_flows",
        "cirri_lb_frontends",
        "cirri_lb_maglev",
        "cirri_lb_ranges",
        "cirri_lb_reverse",
        "cirri_lb_services",
        "cirri_masquerade_not",
        "cirri_metrics",
        "cirri_nat",
        "cirri_nexthops",
        "cirri_policy",
        "cirri_policy_memos",
        "cirri_runtime",
        "cirri_ways",
    ),
    capabilities=("BPF", "NET_ADMIN", "PERFMON", "SYS_ADMIN"),
)
