"""Labels: how they are written, which ones a pod has, which count, and the numbers they get.

Pure.  Sources: ``k8s``, ``reserved``, ``cidr``, ``cidrgroup``, ``fqdn``, ``node``; in selectors also
``any``, which matches whatever the source.
"""

from cirri.labels.filter import InvalidLabelFilter, LabelFilter
from cirri.labels.label import (
    CLUSTER_KEY,
    NAMESPACE_KEY,
    NAMESPACE_LABELS_PREFIX,
    SERVICE_ACCOUNT_KEY,
    Label,
    canonical,
)
from cirri.labels.numbers import (
    RESERVED_LABELS,
    SPACE,
    IdentitiesExhausted,
    Reserved,
    Space,
    probes,
    reserved_number,
)
from cirri.labels.pods import pod_labels

__all__ = [
    "CLUSTER_KEY",
    "NAMESPACE_KEY",
    "NAMESPACE_LABELS_PREFIX",
    "RESERVED_LABELS",
    "SERVICE_ACCOUNT_KEY",
    "SPACE",
    "IdentitiesExhausted",
    "InvalidLabelFilter",
    "Label",
    "LabelFilter",
    "Reserved",
    "Space",
    "canonical",
    "pod_labels",
    "probes",
    "reserved_number",
]
