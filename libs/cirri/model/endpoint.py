"""Endpoints: workload interfaces under policy, as their node realized them."""

from typing import Literal

from msgspec import Struct

from cirri.model.bucket import Bucket, token

EndpointState = Literal["waiting-for-identity", "regenerating", "ready", "disconnecting", "invalid"]


class Endpoint(Struct, frozen=True, kw_only=True):
    """A pod on a node.  Addresses as text, "" if it has none of that family.

    Everything but :data:`REPORTS` is published at once.  Which policies are in force on it, its
    node's :class:`cirri.model.Ack` says.
    """

    node: str
    id: int
    """1..65535, unique on its node."""
    namespace: str
    pod: str
    container_id: str
    interface: str
    """Name of the device on the node's side."""
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    labels: tuple[str, ...] = ()
    """All candidate labels ``source:key=value``, sorted, before the relevance filter: what the
    identity service allocates from."""
    identity: int = 0
    """Realized identity; 0: none yet."""
    state: EndpointState = "waiting-for-identity"
    ingress_enforced: bool = False
    egress_enforced: bool = False
    audit: bool = False
    """What its policy would drop passes and is reported: set by ``cirri endpoint config``, or for every
    endpoint by key ``policy-audit-mode`` of the configuration."""
    error: str = ""


REPORTS = ("ingress_enforced", "egress_enforced", "audit", "error")
"""Fields that are for people: they may be published some moments late, and no service acts on them."""


ENDPOINTS = Bucket(
    "endpoints", Endpoint, lambda e: f"{token(e.node)}.{e.id}", writer="datapath", shard="node"
)
