from typing import Any

from cirri.labels import pod_labels
from cirri.model import Resource


def pod(labels: dict[str, str], **spec: Any) -> Resource:
    return Resource(
        kind="Pod", namespace="shop", name="web", manifest={"metadata": {"labels": labels}, "spec": spec}
    )


NAMESPACE = Resource(kind="Namespace", name="shop", manifest={"metadata": {"labels": {"team": "dev"}}})

DERIVED = {
    "k8s:io.kubernetes.pod.namespace=shop",
    "k8s:io.cilium.k8s.policy.cluster=prod",
    "k8s:io.cilium.k8s.policy.serviceaccount=default",
    "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop",
}


def test_derived_labels() -> None:
    expected = {*DERIVED, "k8s:app=web", "k8s:io.cilium.k8s.namespace.labels.team=dev"}
    assert pod_labels(pod({"app": "web"}), NAMESPACE, "prod") == expected


def test_namespace_not_known() -> None:
    assert pod_labels(pod({}), None, "prod") == DERIVED


def test_nobody_is_taken_in() -> None:
    forged = {
        "io.cilium.k8s.policy.serviceaccount": "admin",
        "io.cilium.k8s.policy.cluster": "other",
        "io.cilium.k8s.namespace.labels.team": "sre",
        "io.kubernetes.pod.namespace": "ops",
    }
    assert pod_labels(pod(forged), None, "prod") == DERIVED


def test_service_account() -> None:
    found = pod_labels(pod({}, serviceAccountName="checkout"), None, "prod")
    assert "k8s:io.cilium.k8s.policy.serviceaccount=checkout" in found
