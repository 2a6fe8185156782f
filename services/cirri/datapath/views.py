"""The tables that a node follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cirri.kv import Table
from cirri.model import (
    ENDPOINTS,
    IDENTITIES,
    NODES,
    POD_CIDRS,
    POLICIES,
    RESOURCES,
    SELECTORS,
    Endpoint,
    Identity,
    NodeStatus,
    PodCIDRs,
    PolicyEntry,
    Resource,
    SelectorSet,
    resource_key,
)
from cirri.model.bucket import token


@dataclass(frozen=True, slots=True)
class Views:
    """Everything the node is told, by key."""

    pods: Table[Resource]
    """Of this node alone."""
    namespaces: Table[Resource]
    config: Table[Resource]
    services: Table[Resource]
    slices: Table[Resource]
    node_objects: Table[Resource]
    identities: Table[Identity]
    policies: Table[PolicyEntry]
    selectors: Table[SelectorSet]
    endpoints: Table[Endpoint]
    nodes: Table[NodeStatus]
    cidrs: Table[PodCIDRs]

    @classmethod
    def of(cls, table: Callable[[Any, str], Table[Any]], node: str) -> Views:
        """From *table*, which follows a pattern of a bucket."""
        return cls(
            pods=table(RESOURCES, resource_key("Pod", "*", "*", node)),
            namespaces=table(RESOURCES, resource_key("Namespace", "*")),
            config=table(RESOURCES, resource_key("ConfigMap", "kube-system", "cirri-config")),
            services=table(RESOURCES, resource_key("Service", "*")),
            slices=table(RESOURCES, resource_key("EndpointSlice", "*")),
            node_objects=table(RESOURCES, resource_key("Node", "*")),
            identities=table(IDENTITIES, ">"),
            policies=table(POLICIES, ">"),
            selectors=table(SELECTORS, ">"),
            endpoints=table(ENDPOINTS, ">"),
            nodes=table(NODES, ">"),
            cidrs=table(POD_CIDRS, token(node)),
        )
