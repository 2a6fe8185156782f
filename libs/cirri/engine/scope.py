"""What is added to the selectors that users write, so that a policy stays in its namespace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cirri.engine.select import ANY_SOURCE, Requirement, Selector, require
from cirri.labels import CLUSTER_KEY, NAMESPACE_KEY, NAMESPACE_LABELS_PREFIX

K8S = "k8s"

IS_POD = require(K8S, NAMESPACE_KEY, "Exists")
"""Every pod has a namespace; nodes, the world and other special peers have none."""

_NO_HOST = require("reserved", "host", "DoesNotExist")

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
    """Endpoints, never nodes, that an ``endpointSelector`` selects; *namespace* "": cluster-wide."""
    return Selector.of([*user, in_namespace(namespace) if namespace else _NO_HOST])


def node_subject(user: Sequence[Requirement]) -> Selector:
    """Nodes that a ``nodeSelector`` selects, each as the endpoint that it is to its own pods."""
    return Selector.of([*user, require("reserved", "host", "Exists")])


def peer(
    user: Sequence[Requirement],
    namespace: str,
    cluster: str = "",
    *,
    subject_is_init: bool = False,
    constraint: bool = False,
) -> Selector:
    """Peers that a selector in ``from/toEndpoints`` selects.

    A cluster-wide policy (*namespace* "") means the pods of every namespace, but whoever it is where its
    subject is endpoints whose labels are not known yet.  Selectors that speak of reserved labels are left
    alone (not so those of a *constraint*, ``from/toRequires``), and those that speak of namespaces
    themselves keep theirs.  *cluster*: the one whose pods are meant unless the selector says; "": of any.
    A selector that asks for no pod also means who belongs to no cluster: nodes and the world (5.4).
    """
    if not constraint and any(one.source == "reserved" for one in user):
        return Selector.of(user)
    if subject_is_init and not namespace:
        return Selector.of(user)
    scoped, clusters = [*user, *_namespaces(user, namespace)], _clusters(user, cluster)
    if constraint or not clusters or any(one.positive and _about_namespaces(one) for one in scoped):
        return Selector.of([*scoped, *clusters])
    return Selector.of([*scoped, *clusters], [*scoped, require(K8S, CLUSTER_KEY, "DoesNotExist")])


def node_peer(user: Sequence[Requirement]) -> Selector:
    """Nodes that a selector in ``from/toNodes`` selects: never the subject's own."""
    return Selector.of([*user, require("reserved", "remote-node", "Exists")])


def service_peer(selector: Mapping[str, str], namespace: str, cluster: str = "") -> Selector:
    """Pods of a Service in *namespace* with a *selector*; *cluster* as in :func:`peer`."""
    labels = [require(K8S, key, "In", [value]) for key, value in selector.items()]
    return Selector.of([*labels, in_namespace(namespace), *_clusters(labels, cluster)])


def kubernetes_peer(
    pods: Sequence[Requirement] | None,
    namespaces: Sequence[Requirement] | None,
    namespace: str,
    cluster: str = "",
) -> Selector:
    """Peers of one ``from``/``to`` item of a Kubernetes NetworkPolicy: pods only, never nodes or world."""
    wanted = list(pods or ())
    wanted += _clusters(wanted, cluster)
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


def _namespaces(user: Sequence[Requirement], namespace: str) -> Sequence[Requirement]:
    if any(_mentions(one, NAMESPACE_KEY) for one in user):
        return ()
    if not namespace:
        return (IS_POD,)
    return () if any(_about_namespaces(one) for one in user) else (in_namespace(namespace),)


def _clusters(user: Sequence[Requirement], cluster: str) -> Sequence[Requirement]:
    if not cluster or any(_mentions(one, CLUSTER_KEY) for one in user):
        return ()
    return (require(K8S, CLUSTER_KEY, "In", [cluster]),)


def _about_namespaces(one: Requirement) -> bool:
    """Whether it speaks of a pod's namespace, or of that namespace's labels."""
    label = one.key.startswith(NAMESPACE_LABELS_PREFIX) and one.source in {K8S, ANY_SOURCE}
    return label or _mentions(one, NAMESPACE_KEY)


def _mentions(one: Requirement, key: str) -> bool:
    return one.key == key and one.source in {K8S, ANY_SOURCE}
