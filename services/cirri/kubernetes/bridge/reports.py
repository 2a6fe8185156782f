"""What is said to an API server: statuses of people's objects, and objects that show our own state.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from cirri.kubeapi.served import Served, served
from cirri.kubernetes.bridge.wants import Want
from cirri.manifests import KINDS
from cirri.manifests.crd import MINE
from cirri.model import Endpoint, Identity, NodeStatus, PolicyCondition, Resource

ENDPOINT = Served("cilium.io", "v2", "ciliumendpoints", "CiliumEndpoint")
IDENTITY = Served("cilium.io", "v2", "ciliumidentities", "CiliumIdentity", namespaced=False)
NODE = Served("cilium.io", "v2", "ciliumnodes", "CiliumNode", namespaced=False)
REPORTED = (ENDPOINT, IDENTITY, NODE)
TAINT = "node.cilium.io/agent-not-ready"
"""Keeps pods off a node until its network is there."""
DISABLED, AUDITED = "<status disabled>", "<status audit>"
_NAMESPACE = "k8s:io.kubernetes.pod.namespace="


def _sent(kind: Served, metadata: Mapping[str, Any], **parts: Any) -> bytes:
    head = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
    return msgspec.json.encode({**head, **parts})


def status(resource: Resource, value: Mapping[str, Any]) -> Want:
    """The status of an object that exists becomes *value*, as far as it is ours."""
    kind = served(KINDS[resource.kind])
    metadata = _name(resource.name, resource.namespace)
    path = kind.path(resource.namespace, resource.name) + "/status"
    return Want("PATCH", path, _sent(kind, metadata, status=value))


def _name(name: str, namespace: str) -> dict[str, Any]:
    return {"name": name, **({"namespace": namespace} if namespace else {})}


def policy(resource: Resource, condition: PolicyCondition) -> Want:
    """The ``Valid`` condition of a policy of the field's kinds."""
    return valid(resource, ok=condition.valid, message=condition.message, since=condition.since)


def valid(resource: Resource, *, ok: bool, message: str, since: str) -> Want:
    """Whether a policy is in force, and why not."""
    said = {
        "type": "Valid",
        "status": "True" if ok else "False",
        "message": message,
        "lastTransitionTime": since,
    }
    return status(resource, {"conditions": [said]})


def endpoint(one: Endpoint, identity: Identity | None, pod_uid: str) -> Want:
    """A pod's CiliumEndpoint; it goes with its pod."""
    owner = {"apiVersion": "v1", "kind": "Pod", "name": one.pod, "uid": pod_uid}
    metadata = {
        **_name(one.pod, one.namespace),
        "labels": MINE,
        **({"ownerReferences": [owner]} if pod_uid else {}),
    }
    addresses = {"ipv4": one.ipv4, "ipv6": one.ipv6}
    said = {
        "id": one.id,
        "state": one.state,
        "identity": {"id": one.identity, "labels": list(identity.labels) if identity else []},
        "networking": {"addressing": [{k: v for k, v in addresses.items() if v}], "node": one.node},
        "policy": {
            "ingress": _side(enforced=one.ingress_enforced, audit=one.audit),
            "egress": _side(enforced=one.egress_enforced, audit=one.audit),
        },
        "external-identifiers": {
            "container-id": one.container_id,
            "k8s-namespace": one.namespace,
            "pod-name": one.pod,
        },
    }
    return Want("PATCH", ENDPOINT.path(one.namespace, one.pod), _sent(ENDPOINT, metadata, status=said))


def _side(*, enforced: bool, audit: bool) -> dict[str, Any]:
    state = DISABLED if not enforced else AUDITED if audit else "true"
    return {"enforcing": enforced and not audit, "state": state}


def identity(one: Identity) -> Want:
    """An identity's CiliumIdentity: labels by source and key, and those of Kubernetes as its own."""
    labels = dict(label.partition("=")[::2] for label in one.labels)
    namespaces = [label.removeprefix(_NAMESPACE) for label in one.labels if label.startswith(_NAMESPACE)]
    shown = {"io.kubernetes.pod.namespace": namespaces[0]} if namespaces else {}
    metadata = {"name": str(one.id), "labels": {**MINE, **shown}}
    return Want(
        "PATCH", IDENTITY.path(name=str(one.id)), _sent(IDENTITY, metadata, **{"security-labels": labels})
    )


def node(one: NodeStatus) -> Want:
    """A node's CiliumNode."""
    metadata = {"name": one.node, "labels": MINE}
    spec = {
        "addresses": [{"type": "InternalIP", "ip": address} for address in one.addresses],
        "ipam": {"podCIDRs": list(one.pod_cidrs)},
    }
    return Want("PATCH", NODE.path(name=one.node), _sent(NODE, metadata, spec=spec))


def untainted(resource: Resource) -> Want | None:
    """A Node without the taint that waited for its network; None if it has none.

    Its list of taints belongs to nobody, so the write says what it found: it is refused if that has changed.
    """
    taints: Iterable[Any] = (resource.manifest.get("spec") or {}).get("taints") or ()
    left = [each for each in taints if each.get("key") != TAINT]
    if left == list(taints):
        return None
    operations = [
        {"op": "test", "path": "/spec/taints", "value": taints},
        {"op": "replace", "path": "/spec/taints", "value": left},
    ]
    path = served(KINDS["Node"]).path(name=resource.name)
    return Want("PATCH", path, msgspec.json.encode(operations), "application/json-patch+json")


def available(resource: Resource, now: str) -> Want | None:
    """A Node's condition NetworkUnavailable becomes False; None if it is."""
    conditions = (resource.manifest.get("status") or {}).get("conditions") or ()
    found = next((each for each in conditions if each.get("type") == "NetworkUnavailable"), None)
    if found is not None and found.get("status") == "False":
        return None
    said = {
        "type": "NetworkUnavailable",
        "status": "False",
        "reason": "CirriIsUp",
        "message": "Cirri is running on this node",
        "lastTransitionTime": now,
        "lastHeartbeatTime": now,
    }
    return status(resource, {"conditions": [said]})


def event(resource: Resource, reason: str, message: str, now: str, serial: str) -> Want:
    """A Warning about an object, for people."""
    namespace = resource.namespace or "default"
    uid = str((resource.manifest.get("metadata") or {}).get("uid", ""))
    about = {"kind": resource.kind, "apiVersion": KINDS[resource.kind].api_version}
    name = f"{resource.name}.{serial}"
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {
            **about,
            **_name(resource.name, resource.namespace),
            **({"uid": uid} if uid else {}),
        },
        "type": "Warning",
        "reason": reason,
        "message": message[:1000],
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": "cirri"},
    }
    return Want("PATCH", served(KINDS["Event"]).path(namespace, name), msgspec.json.encode(body))


def gone(kind: Served, namespace: str, name: str) -> Want:
    """An object that we made is no longer."""
    return Want("DELETE", kind.path(namespace, name))
