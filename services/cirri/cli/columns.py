"""The columns of ``cirri get``: one table of functions per kind.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from msgspec.structs import replace

from cirri.cli.confirm import deadline, left_text
from cirri.cli.output import age, for_people
from cirri.manifests import KINDS
from cirri.model import Endpoint, Identity, PolicyCondition, Resource
from cirri.model.resource import AUDIT_MODE

Manifest = Mapping[str, Any]
DISABLED = "<status disabled>"
"""How ``get cep`` shows a direction that no policy enforces."""
AUDITED = "<status audit>"
FAILED_ON = "cirri.io/FailedOn."
"""The type of a condition, before a node's name (cirri.sensor.statuses)."""
"""And one that a policy would, were the endpoint not audited."""


class Column(NamedTuple):
    """A heading and what stands below it."""

    title: str
    cell: Callable[[Any], str]
    wide: bool = False
    """Shown with ``-o wide`` only."""
    filled: bool = False
    """Shown only if there is something to say about some row."""


def _meta(resource: Resource) -> Manifest:
    return resource.manifest.get("metadata") or {}


def _spec(resource: Resource) -> Manifest:
    return resource.manifest.get("spec") or {}


def _status(resource: Resource) -> Manifest:
    return resource.manifest.get("status") or {}


def _pairs(labels: Mapping[str, str]) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted(labels.items())) or "<none>"


def _selector(selector: Manifest | None) -> str:
    """A label selector in one cell."""
    if not selector:
        return "<all>"
    parts = [f"{k}={v}" for k, v in sorted((selector.get("matchLabels") or {}).items())]
    for expression in selector.get("matchExpressions") or []:
        values = f" ({','.join(expression['values'])})" if expression.get("values") else ""
        parts.append(f"{expression['key']} {expression['operator']}{values}")
    return ",".join(parts) or "<all>"


def _pod_ready(pod: Resource) -> str:
    containers = _status(pod).get("containerStatuses") or []
    ready = sum(1 for c in containers if c.get("ready"))
    return f"{ready}/{len(_spec(pod).get('containers') or [])}"


def pod_phase(pod: Resource) -> str:
    """The phase, or why a container waits."""
    for container in _status(pod).get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting")
        if waiting:
            return str(waiting.get("reason") or "Waiting")
        if ended := (container.get("state") or {}).get("terminated"):
            return str(ended.get("reason") or "Error")
    return str(_status(pod).get("phase") or "Pending")


def _pod_addresses(pod: Resource) -> str:
    found = [a.get("ip", "") for a in _status(pod).get("podIPs") or []]
    return ",".join(found) or str(_status(pod).get("podIP") or "<none>")


def _service_ports(service: Resource) -> str:
    return (
        ",".join(
            f"{p['port']}{':' + str(p['nodePort']) if p.get('nodePort') else ''}/{p.get('protocol', 'TCP')}"
            for p in _spec(service).get("ports") or []
        )
        or "<none>"
    )


def _external(service: Resource) -> str:
    balancer = (_status(service).get("loadBalancer") or {}).get("ingress") or []
    found = [i.get("ip", "") for i in balancer] + list(_spec(service).get("externalIPs") or [])
    if _spec(service).get("type") == "ExternalName":
        return str(_spec(service).get("externalName"))
    return ",".join(found) or ("<pending>" if _spec(service).get("type") == "LoadBalancer" else "<none>")


def _replicas(deployment: Resource) -> str:
    return f"{_status(deployment).get('readyReplicas', 0)}/{_spec(deployment).get('replicas', 1)}"


def _node_ready(node: Resource) -> str:
    found = {c.get("type"): c.get("status") for c in _status(node).get("conditions") or []}
    return {"True": "Ready", "False": "NotReady"}.get(str(found.get("Ready")), "Unknown")


def _node_addresses(node: Resource) -> str:
    found = [a for a in _status(node).get("addresses") or [] if a.get("type") == "InternalIP"]
    return ",".join(a.get("address", "") for a in found) or "<none>"


def _secret_keys(secret: Resource) -> str:
    return str(len({**(secret.manifest.get("data") or {}), **(secret.manifest.get("stringData") or {})}))


def _slice_endpoints(slice_: Resource) -> str:
    found = [a for e in slice_.manifest.get("endpoints") or [] for a in e.get("addresses") or []]
    shown = ",".join(found[:3]) or "<none>"
    return f"{shown} + {len(found) - 3} more" if len(found) > 3 else shown


def _slice_ports(slice_: Resource) -> str:
    return ",".join(str(p.get("port", "")) for p in slice_.manifest.get("ports") or []) or "<none>"


NAME = Column("NAME", lambda r: r.name)
AGE = Column("AGE", lambda r: age(str(_meta(r).get("creationTimestamp", ""))))
LABELS = Column("LABELS", lambda r: _pairs(_meta(r).get("labels") or {}), wide=True)


def with_condition(policy: Resource, condition: PolicyCondition | None, revision: int) -> Resource:
    """*policy*, which is at *revision*, with what the policy service says about it in its status."""
    if condition is None:
        return policy
    word = "True" if condition.valid else "False"
    said = {
        "type": "Valid",
        # What is said about an earlier version says nothing about this one.
        "status": word if condition.revision >= revision else "Unknown",
        "message": condition.message,
        "lastTransitionTime": condition.since,
    }
    return replace(policy, manifest={**policy.manifest, "status": {**_status(policy), "conditions": [said]}})


def _condition(policy: Resource, field: str) -> str:
    return _said(policy, "Valid", field)


def _said(resource: Resource, condition: str, field: str) -> str:
    found = [c for c in _status(resource).get("conditions") or [] if c.get("type") == condition]
    return str(found[0].get(field, "")) if found else ""


def _failed_on(policy: Resource) -> str:
    """Nodes whose kernel refused a tracing policy."""
    kinds = [str(c.get("type")) for c in _status(policy).get("conditions") or []]
    return ",".join(sorted(k.removeprefix(FAILED_ON) for k in kinds if k.startswith(FAILED_ON)))


def _mode(policy: Resource) -> str:
    audited = (_meta(policy).get("annotations") or {}).get(AUDIT_MODE) == "enabled"
    return "audit" if audited else ""


def _undone(policy: Resource) -> str:
    by = deadline(policy)
    return f"in {left_text(by, datetime.now(UTC))}" if by else ""


OF_POLICIES = (
    AGE,
    Column("VALID", lambda r: _condition(r, "status") or "Unknown"),
    Column("MODE", _mode, filled=True),
    Column("UNDONE", _undone, filled=True),
    Column("MESSAGE", lambda r: _condition(r, "message"), wide=True),
)
"""MODE: whether it is only watched.  UNDONE: when, unless it is confirmed."""


def _invalid(service: Resource) -> str:
    return "False" if _condition(service, "status") == "False" else ""


def _about(event: Resource) -> str:
    about = event.manifest.get("involvedObject") or {}
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _seen(event: Resource) -> str:
    count = event.manifest.get("count", 1)
    last = age(str(event.manifest.get("lastTimestamp") or ""))
    return f"{last} (x{count})" if count > 1 else last


COLUMNS: dict[str, tuple[Column, ...]] = {
    "Pod": (
        NAME,
        Column("READY", _pod_ready),
        Column("STATUS", pod_phase),
        Column("IP", lambda r: str(_status(r).get("podIP") or "<none>")),
        Column("NODE", lambda r: r.node or "<none>"),
        AGE,
        Column("IPS", _pod_addresses, wide=True),
        LABELS,
    ),
    "Service": (
        NAME,
        Column("TYPE", lambda r: str(_spec(r).get("type", "ClusterIP"))),
        Column("CLUSTER-IP", lambda r: str(_spec(r).get("clusterIP") or "<none>")),
        Column("EXTERNAL-IP", _external),
        Column("PORT(S)", _service_ports),
        AGE,
        Column("VALID", _invalid, filled=True),
        Column("CLUSTER-IPS", lambda r: ",".join(_spec(r).get("clusterIPs") or []) or "<none>", wide=True),
        Column("SELECTOR", lambda r: _pairs(_spec(r).get("selector") or {}), wide=True),
        Column("MESSAGE", lambda r: _condition(r, "message"), wide=True, filled=True),
    ),
    "Event": (
        NAME._replace(wide=True),
        Column("LAST SEEN", _seen),
        Column("TYPE", lambda r: str(r.manifest.get("type", ""))),
        Column("REASON", lambda r: str(r.manifest.get("reason", ""))),
        Column("OBJECT", _about),
        Column("MESSAGE", lambda r: str(r.manifest.get("message", ""))),
    ),
    "Deployment": (
        NAME,
        Column("READY", _replicas),
        Column("UP-TO-DATE", lambda r: str(_status(r).get("updatedReplicas", 0))),
        Column("AVAILABLE", lambda r: str(_status(r).get("availableReplicas", 0))),
        AGE,
        Column("SELECTOR", lambda r: _selector(_spec(r).get("selector")), wide=True),
    ),
    "Namespace": (
        NAME,
        Column("STATUS", lambda r: str(_status(r).get("phase") or "Active")),
        AGE,
        LABELS,
    ),
    "Node": (NAME, Column("STATUS", _node_ready), Column("ADDRESSES", _node_addresses), AGE, LABELS),
    "ConfigMap": (NAME, Column("DATA", lambda r: str(len(r.manifest.get("data") or {}))), AGE),
    "EndpointSlice": (
        NAME,
        Column("ADDRESSTYPE", lambda r: str(r.manifest.get("addressType", ""))),
        Column("PORTS", _slice_ports),
        Column("ENDPOINTS", _slice_endpoints),
        AGE,
    ),
    "NetworkPolicy": (
        NAME,
        Column("POD-SELECTOR", lambda r: _selector(_spec(r).get("podSelector"))),
        *OF_POLICIES,
    ),
    "CiliumNetworkPolicy": (NAME, *OF_POLICIES),
    "CiliumClusterwideNetworkPolicy": (NAME, *OF_POLICIES),
    "Secret": (
        NAME,
        Column("TYPE", lambda r: str(r.manifest.get("type") or "Opaque")),
        Column("DATA", _secret_keys),
        AGE,
    ),
    "CiliumLoadBalancerIPPool": (
        NAME,
        Column("DISABLED", lambda r: str(bool(_spec(r).get("disabled"))).lower()),
        Column("CONFLICTING", lambda r: _said(r, "cilium.io/PoolConflict", "status") or "Unknown"),
        Column("IPS AVAILABLE", lambda r: _said(r, "cilium.io/IPsAvailable", "message")),
        AGE,
        Column("MESSAGE", lambda r: _said(r, "cilium.io/PoolConflict", "message"), wide=True, filled=True),
    ),
    **{kind: (NAME, AGE) for kind in KINDS if kind.startswith("CiliumBGP")},
    **dict.fromkeys(
        ("TracingPolicy", "TracingPolicyNamespaced"),
        (
            NAME,
            Column("SERVED", lambda r: _said(r, "cirri.io/Served", "status") or "Unknown"),
            Column("FAILED ON", _failed_on, filled=True),
            AGE,
            Column("MESSAGE", lambda r: _said(r, "cirri.io/Served", "message"), wide=True, filled=True),
        ),
    ),
    "CiliumL2AnnouncementPolicy": (NAME, AGE),
    "CiliumCIDRGroup": (NAME, Column("CIDRS", lambda r: str(len(_spec(r).get("externalCIDRs") or []))), AGE),
}


def _enforced(endpoint: Endpoint, *, enforced: bool) -> str:
    if not enforced:
        return DISABLED
    return AUDITED if endpoint.audit else "true"


ENDPOINT_COLUMNS: tuple[Column, ...] = (
    Column("NAME", lambda e: e.pod),
    Column("SECURITY IDENTITY", lambda e: str(e.identity or "")),
    Column("INGRESS ENFORCEMENT", lambda e: _enforced(e, enforced=e.ingress_enforced)),
    Column("EGRESS ENFORCEMENT", lambda e: _enforced(e, enforced=e.egress_enforced)),
    Column("VISIBILITY POLICY", lambda e: DISABLED),
    Column("ENDPOINT STATE", lambda e: e.state),
    Column("IPV4", lambda e: e.ipv4),
    Column("IPV6", lambda e: e.ipv6),
    Column("NODE", lambda e: e.node, wide=True),
)
"""``get cep``, as Cilium's own table has it."""

_NAMESPACE = "k8s:io.kubernetes.pod.namespace="


def _identity_namespace(identity: Identity) -> str:
    return next(
        (label.removeprefix(_NAMESPACE) for label in identity.labels if label.startswith(_NAMESPACE)), ""
    )


IDENTITY_COLUMNS: tuple[Column, ...] = (
    Column("NAME", lambda i: str(i.id)),
    Column("NAMESPACE", _identity_namespace),
    Column("LABELS", lambda i: ",".join(for_people(i.labels)), wide=True),
)


def endpoint_object(endpoint: Endpoint, identity_labels: Sequence[str]) -> dict[str, Any]:
    """*endpoint* in the shape of a CiliumEndpoint."""
    addresses = {"ipv4": endpoint.ipv4, "ipv6": endpoint.ipv6}
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumEndpoint",
        "metadata": {"name": endpoint.pod, "namespace": endpoint.namespace},
        "status": {
            "id": endpoint.id,
            "state": endpoint.state,
            "identity": {"id": endpoint.identity, "labels": list(identity_labels)},
            "networking": {"addressing": [{k: v for k, v in addresses.items() if v}], "node": endpoint.node},
            "policy": {
                "ingress": _side(endpoint.ingress_enforced, audit=endpoint.audit),
                "egress": _side(endpoint.egress_enforced, audit=endpoint.audit),
            },
            "external-identifiers": {
                "container-id": endpoint.container_id,
                "k8s-namespace": endpoint.namespace,
                "pod-name": endpoint.pod,
            },
            **({"error": endpoint.error} if endpoint.error else {}),
        },
    }


def _side(enforced: bool, *, audit: bool) -> dict[str, Any]:
    return {"enforcing": enforced and not audit, **({"state": "audit"} if enforced and audit else {})}


def identity_object(identity: Identity) -> dict[str, Any]:
    """*identity* in the shape of a CiliumIdentity."""
    labels = dict(label.partition("=")[::2] for label in identity.labels)
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumIdentity",
        "metadata": {"name": str(identity.id)},
        "security-labels": labels,
    }
