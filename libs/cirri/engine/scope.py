"""What is added to the selectors that users write, so that a policy stays in its namespace."""

from __future__ import annotations

from collections.abc import Sequence

from cirri.engine.select import ANY_SOURCE, Requirement, Selector, require
from cirri.labels import CLUSTER_KEY, NAMESPACE_KEY, NAMESPACE_LABELS_PREFIX

K8S = "k8s"

IS_POD = require(K8S, NAMESPACE_KEY, "Exists")
"""Every pod has a namespace; nodes, the world and other special peers have none."""

ENTITIES: dict[str, tuple[str, ...]] = {
    "world": ("reserved:world", "reserved:world-ipv4", "reserved:world-ipv6"),
    "host": ("reserved:host",),
    "remote-node": ("reserved:remote-node",),
    "init": ("reserved:init",),
    "ingress": ("reserved:ingress",),
    "health": ("reserved:health",),
    "unmanaged": ("reserved:unmanaged",),
    "kube-apiserver": ("reserved:kube-apiserver",),
    "world-ipv4": ("reserved:world-ipv4",),
    "world-ipv6": ("reserved:world-ipv6",),
}
"""Labels that make a peer one of the entity; ``all``, ``none`` and ``cluster`` are special."""

ENTITY_NAMES = ("all", "none", "cluster", *ENTITIES)


def subject(user: Sequence[Requirement], namespace: str) -> Selector:
    """Endpoints that an ``endpointSelector`` selects; *namespace* "": of a cluster-wide policy."""
    return Selector.of([*user, in_namespace(namespace)] if namespace else user)


def peer(user: Sequence[Requirement], namespace: str, *, subject_is_init: bool = False) -> Selector:
    """Peers that a selector in ``from/toEndpoints`` selects.

    A cluster-wide policy (*namespace* "") means the pods of every namespace.  Selectors that
    speak of reserved labels or of namespaces themselves are left alone.
    """
    if any(one.source == "reserved" for one in user) or (not namespace and subject_is_init):
        return Selector.of(user)
    if any(_mentions(one, NAMESPACE_KEY) for one in user):
        return Selector.of(user)
    if any(_mentions_prefix(one, NAMESPACE_LABELS_PREFIX) for one in user):
        return Selector.of(user if namespace else [*user, IS_POD])
    return Selector.of([*user, in_namespace(namespace) if namespace else IS_POD])


def kubernetes_peer(
    pods: Sequence[Requirement] | None, namespaces: Sequence[Requirement] | None, namespace: str
) -> Selector:
    """Peers of one ``from``/``to`` item of a Kubernetes NetworkPolicy: pods only, never nodes or world."""
    wanted = list(pods or ())
    if namespaces is None:
        return Selector.of([*wanted, in_namespace(namespace)])
    of_namespace = [one._replace(key=NAMESPACE_LABELS_PREFIX + one.key) for one in namespaces]
    return Selector.of([*wanted, *of_namespace, IS_POD])


def entity(name: str, cluster: str) -> tuple[Selector, ...] | None:
    """Peers of an entity of :data:`ENTITY_NAMES`: None for ``all``, () for ``none``."""
    if name == "all":
        return None
    if name == "none":
        return ()
    if name == "cluster":
        special = Selector.label(
            "reserved:host", "reserved:remote-node", "reserved:init", "reserved:ingress",
            "reserved:health", "reserved:unmanaged", "reserved:kube-apiserver",
        )  # fmt: skip
        return (Selector.of(*special.alternatives, [require(K8S, CLUSTER_KEY, "In", [cluster])]),)
    return (Selector.label(*ENTITIES[name]),)


def in_namespace(namespace: str) -> Requirement:
    """The condition "is a pod of *namespace*"."""
    return require(K8S, NAMESPACE_KEY, "In", [namespace])


def _mentions(one: Requirement, key: str) -> bool:
    return one.key == key and one.source in {K8S, ANY_SOURCE}


def _mentions_prefix(one: Requirement, prefix: str) -> bool:
    return one.key.startswith(prefix) and one.source in {K8S, ANY_SOURCE}
