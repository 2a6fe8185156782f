"""CiliumLoadBalancerIPPool: addresses that LoadBalancer Services get."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cirri.manifests.schema import BOOLEAN, TEXT, Fault, Fields, Items, Text
from cirri.manifests.schemas.meta import SELECTOR, STATUS, metadata
from cirri.manifests.words import ADDRESS, CIDR
from cirri.model import Resource


def _whole(block: Mapping[str, Any]) -> Iterator[Fault]:
    if "cidr" in block and ("start" in block or "stop" in block):
        yield ("cidr",), "stands beside start or stop; allowed: cidr, or start and stop"
    elif "cidr" not in block and "start" not in block:
        yield (), "names no addresses; allowed: cidr, or start and stop"


def _understood(manifest: Mapping[str, Any]) -> Iterator[Fault]:
    """What the fields by themselves do not show."""
    from cirri.lbipam import InvalidLbPool, pool_of  # what only lists kinds need not load it

    name = str(manifest["metadata"]["name"])
    try:
        pool_of(Resource(kind="CiliumLoadBalancerIPPool", name=name, manifest=dict(manifest)))
    except InvalidLbPool as error:
        yield error.path, error.why


_BLOCK = Fields({"cidr": CIDR, "start": ADDRESS, "stop": ADDRESS}, rules=(_whole,))

CILIUM_LOAD_BALANCER_IP_POOL = Fields(
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": metadata("CiliumLoadBalancerIPPool", namespaced=False),
        "spec": Fields(
            {
                "serviceSelector": SELECTOR,
                "allowFirstLastIPs": Text(choices=("Yes", "No")),
                "blocks": Items(_BLOCK, low=1),
                "disabled": BOOLEAN,
            },
            required=("blocks",),
        ),
        "status": STATUS,
    },
    required=("metadata", "spec"),
    rules=(_understood,),
)
