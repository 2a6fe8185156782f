"""CiliumL2AnnouncementPolicy: which addresses of Services nodes answer for on their segment."""

from __future__ import annotations

from cirri.manifests.schema import BOOLEAN, TEXT, Fields, Items, Text
from cirri.manifests.schemas.meta import SELECTOR, STATUS, metadata


def _regular(text: str) -> str:
    from cirri.engine import regex  # what only lists kinds need not load it

    why = regex.complaint(text)
    return f'"{text}" is no regular expression (RE2): {why}' if why else ""


CILIUM_L2_ANNOUNCEMENT_POLICY = Fields(
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": metadata("CiliumL2AnnouncementPolicy", namespaced=False),
        "spec": Fields(
            {
                "serviceSelector": SELECTOR,
                "nodeSelector": SELECTOR,
                "interfaces": Items(Text(test=_regular)),
                "externalIPs": BOOLEAN,
                "loadBalancerIPs": BOOLEAN,
            }
        ),
        "status": STATUS,
    },
    required=("metadata", "spec"),
)
