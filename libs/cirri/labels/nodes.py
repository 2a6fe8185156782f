"""The labels that a node has for policy: as a subject and local peer, and as seen from other nodes."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from typing import NamedTuple

from cirri.labels.filter import LabelFilter
from cirri.labels.label import Label
from cirri.labels.numbers import Reserved
from cirri.labels.prefixes import CIDR, prefix_key
from cirri.model import Resource


class NodeLabels(NamedTuple):
    """Two label sets of one node."""

    host: frozenset[str]
    """What node policies select, and what the node is to its own pods."""
    remote: frozenset[str]
    """What it is to everybody on other nodes."""


def node_labels(
    node: Resource | None,
    addresses: Iterable[str],
    label_filter: LabelFilter,
    *,
    by_cidr: bool = False,
    by_labels: bool = False,
    api_server: bool = False,
) -> NodeLabels:
    """Labels of the node with Node object *node* (None: it has none) and its own *addresses*.

    *by_cidr*: policies may select nodes by address (``policy-cidr-match-mode`` has ``nodes``);
    *by_labels*: and by node labels (``enable-node-selector-labels``); *api_server*: one runs on it.
    """
    metadata = (node.manifest.get("metadata") or {}) if node is not None else {}
    own = {str(key): str(value) for key, value in (metadata.get("labels") or {}).items()}
    shared = {f"{CIDR}:{prefix_key(ip_network(address))}" for address in addresses} if by_cidr else set()
    if api_server:
        shared.add(Reserved.KUBE_APISERVER.label)
    host = label_filter.relevant(str(Label("k8s", key, value)) for key, value in own.items())
    remote = {str(Label("node", key, value)) for key, value in own.items()} if by_labels else set()
    return NodeLabels(
        host | shared | {Reserved.HOST.label},
        frozenset(remote | shared | {Reserved.REMOTE_NODE.label}),
    )
