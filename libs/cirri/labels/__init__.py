"""Labels: how they are written, which ones a pod has, which count, and the numbers they get.

Pure.  Sources: ``k8s``, ``reserved``, ``cidr``, ``fqdn``, ``node``, ``port``; in selectors also
``any``, which matches whatever the source.
"""

from cirri.labels.apiserver import api_server_addresses, api_server_labels
from cirri.labels.filter import InvalidLabelFilter, LabelFilter
from cirri.labels.label import (
    CLUSTER_KEY,
    NAMESPACE_KEY,
    NAMESPACE_LABELS_PREFIX,
    SERVICE_ACCOUNT_KEY,
    Label,
    canonical,
)
from cirri.labels.nodes import NodeLabels, node_labels
from cirri.labels.numbers import (
    NAMES_SPACE,
    NODE_SPACE,
    RESERVED_LABELS,
    SPACE,
    WORLD_SPACE,
    IdentitiesExhausted,
    Reserved,
    Space,
    in_space,
    is_located,
    probes,
    reserved_number,
    space_of,
)
from cirri.labels.pods import PORT, pod_labels, port_label
from cirri.labels.prefixes import (
    CIDR,
    Network,
    parse_prefix,
    prefix_key,
    prefix_labels,
    prefix_of,
    world_label,
)

__all__ = [
    "CIDR",
    "CLUSTER_KEY",
    "NAMESPACE_KEY",
    "NAMESPACE_LABELS_PREFIX",
    "NAMES_SPACE",
    "NODE_SPACE",
    "PORT",
    "RESERVED_LABELS",
    "SERVICE_ACCOUNT_KEY",
    "SPACE",
    "WORLD_SPACE",
    "IdentitiesExhausted",
    "InvalidLabelFilter",
    "Label",
    "LabelFilter",
    "Network",
    "NodeLabels",
    "Reserved",
    "Space",
    "api_server_addresses",
    "api_server_labels",
    "canonical",
    "in_space",
    "is_located",
    "node_labels",
    "parse_prefix",
    "pod_labels",
    "port_label",
    "prefix_key",
    "prefix_labels",
    "prefix_of",
    "probes",
    "reserved_number",
    "space_of",
    "world_label",
]
