"""Nodes: the pod ranges they were given, what they are, and what they have realized."""

from msgspec import Struct

from cirri.model.bucket import Bucket, token


class PodCIDRs(Struct, frozen=True, kw_only=True):
    """Ranges that *node* assigns pod addresses from.  The list may grow, entries never change."""

    node: str
    cidrs: tuple[str, ...] = ()
    """IPv4 and IPv6 prefixes, in the order they were given."""
    error: str = ""
    """Why the node lacks a range: a sentence, e.g. that the pools are exhausted."""


class NodeStatus(Struct, frozen=True, kw_only=True):
    """What others must know of a node; it changes only when something about the node does."""

    node: str
    addresses: tuple[str, ...] = ()
    """The node's own addresses, IPv4 first."""
    pod_cidrs: tuple[str, ...] = ()
    """Ranges in use; ``ipam`` adopts them when its bucket was lost."""
    addresses_used: int = 0
    """Addresses given out to pods, those of both families counted: a pod has one of each."""
    addresses_total: int = 0
    """Addresses that its ranges hold for pods, of both families together."""
    errors: tuple[str, ...] = ()
    """What is wrong on this node now, one sentence each."""
    features: dict[str, str] = {}
    """What the kernel was found to have and what was chosen, e.g. ``{"attach": "tcx"}``."""


class Ack(Struct, frozen=True, kw_only=True):
    """What one node has realized of bucket ``resources``.

    Apart from :class:`NodeStatus`, because every change of a policy brings one from each node,
    and no service waits for it: people do.
    """

    node: str
    policy_revision: int = 0
    """Revision R of bucket ``resources``: every policy up to R is in force on all endpoints."""
    resources_revision: int = 0
    """Last revision of Services, EndpointSlices and Nodes that is in the kernel."""


POD_CIDRS = Bucket("podcidrs", PodCIDRs, lambda p: token(p.node), writer="ipam")
NODES = Bucket("nodes", NodeStatus, lambda n: token(n.node), writer="datapath", shard="node")
ACKS = Bucket("acks", Ack, lambda a: token(a.node), writer="datapath", shard="node", history=1)
