"""The labels a pod has for policy: its own, and those derived from where it runs."""

from __future__ import annotations

from typing import Any

from cirri.labels.label import (
    CLUSTER_KEY,
    NAMESPACE_KEY,
    NAMESPACE_LABELS_PREFIX,
    SERVICE_ACCOUNT_KEY,
    Label,
)
from cirri.model import Resource

PORT = "port"
"""Source of the labels that stand for named ports."""

DERIVED_PREFIX = "io.cilium.k8s"
"""Keys below it are ours alone: a user cannot claim another namespace, cluster or account."""


def pod_labels(pod: Resource, namespace: Resource | None, cluster: str) -> frozenset[str]:
    """Every candidate label of *pod*, before the relevance filter.

    *namespace* is its Namespace object, None if it is not known (yet); then it still has the
    label ``kubernetes.io/metadata.name``, which every namespace has.
    """
    keys = {key: value for key, value in _labels(pod).items() if not key.startswith(DERIVED_PREFIX)}
    keys[NAMESPACE_KEY] = pod.namespace
    keys[CLUSTER_KEY] = cluster
    keys[SERVICE_ACCOUNT_KEY] = _service_account(pod)
    of_namespace = {"kubernetes.io/metadata.name": pod.namespace}
    if namespace is not None:
        of_namespace = _labels(namespace) | of_namespace
    keys |= {NAMESPACE_LABELS_PREFIX + key: value for key, value in of_namespace.items()}
    return frozenset(str(Label("k8s", key, value)) for key, value in keys.items()) | _port_labels(pod)


def port_label(protocol: str, name: str) -> str:
    """Name of the label with the number of a pod's port *name*, e.g. ``port:tcp/http``.

    Two pods that give one name to different numbers have different policies, so these labels count for
    identity; selectors of users never see them.
    """
    return f"{PORT}:{protocol.lower()}/{name.lower()}"


def _port_labels(pod: Resource) -> set[str]:
    spec: dict[str, Any] = pod.manifest.get("spec") or {}
    # Sidecars that run beside the containers are listed among those that run before them.
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    ports = [port for container in containers for port in container.get("ports") or () if port.get("name")]
    found: dict[str, Any] = {}
    for port in ports:
        name = port_label(str(port.get("protocol") or "TCP"), str(port["name"]))
        found.setdefault(name, port["containerPort"])
    return {f"{name}={number}" for name, number in found.items()}


def _labels(resource: Resource) -> dict[str, str]:
    metadata: dict[str, Any] = resource.manifest.get("metadata") or {}
    return {str(key): str(value) for key, value in (metadata.get("labels") or {}).items()}


def _service_account(pod: Resource) -> str:
    spec: dict[str, Any] = pod.manifest.get("spec") or {}
    return spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
