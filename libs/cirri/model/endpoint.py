"""Endpoints: workload interfaces under policy, as their node realized them."""

from typing import Literal

from msgspec import Struct

from cirri.model.bucket import Bucket, token

EndpointState = Literal["waiting-for-identity", "regenerating", "ready", "disconnecting", "invalid"]


class Endpoint(Struct, frozen=True, kw_only=True):
    """A pod on a node.  Addresses as text, "" if it has none of that family."""

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
    policy_revision: int = 0
    """Revision of bucket ``policies`` whose entry for this identity is in the kernel."""
    error: str = ""


ENDPOINTS = Bucket(
    "endpoints", Endpoint, lambda e: f"{token(e.node)}.{e.id}", writer="datapath", shard="node"
)
