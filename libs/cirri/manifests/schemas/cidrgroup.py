"""CiliumCIDRGroup: prefixes and addresses under one name, for policies to refer to."""

from __future__ import annotations

from cirri.manifests.schema import TEXT, Fields, Items
from cirri.manifests.schemas.meta import STATUS, metadata
from cirri.manifests.words import CIDR

CILIUM_CIDR_GROUP = Fields(
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": metadata("CiliumCIDRGroup", namespaced=False),
        "spec": Fields({"externalCIDRs": Items(CIDR)}, required=("externalCIDRs",)),
        "status": STATUS,
    },
    required=("metadata", "spec"),
)
