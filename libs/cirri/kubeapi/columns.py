"""The columns of ``kubectl get``: Kubernetes' own for its kinds, those of definitions for others.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from cirri.kubeapi.served import Column
from cirri.manifests import KINDS, crd

Manifest = Mapping[str, Any]
NONE = "<none>"
_STEP = re.compile(r"\.(?P<name>[-\w]+)(?:\[\?\(@\.(?P<key>\w+)==['\"](?P<value>[^'\"]+)['\"]\)\])?")


def age(created: str, now: datetime | None = None) -> str:
    """Time since *created* (RFC 3339), as Kubernetes writes it: ``3m20s``, ``47h``, ``5d``."""
    try:
        then = datetime.fromisoformat(created.replace("Z", "+00:00"))
    except ValueError:
        return "<unknown>"
    seconds = max(0, int(((now or datetime.now(UTC)) - then).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m" + (f"{seconds % 60}s" if seconds % 60 else "")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h" + (f"{minutes % 60}m" if minutes % 60 else "")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d" + (f"{hours % 24}h" if hours % 24 else "")
    return f"{days}d"


def path(manifest: Manifest, jsonpath: str) -> Any:
    """What a printer column's ``jsonPath`` names; None if it is not there."""
    at: Any = manifest
    for step in _STEP.finditer(jsonpath):
        at = at.get(step["name"]) if isinstance(at, Mapping) else None
        if step["key"]:
            found = at if isinstance(at, list) else ()
            at = next((each for each in found if each.get(step["key"]) == step["value"]), None)
    return at


def _printed(column: Mapping[str, Any], manifest: Manifest) -> Any:
    value = path(manifest, column["jsonPath"])
    if value is None:
        return ""
    return age(str(value)) if column["type"] == "date" else value


def _meta(manifest: Manifest) -> Manifest:
    return manifest.get("metadata") or {}


def _spec(manifest: Manifest) -> Manifest:
    return manifest.get("spec") or {}


def _status(manifest: Manifest) -> Manifest:
    return manifest.get("status") or {}


def _containers(pod: Manifest) -> str:
    found = _status(pod).get("containerStatuses") or ()
    return f"{sum(bool(each.get('ready')) for each in found)}/{len(_spec(pod).get('containers') or ())}"


def _phase(pod: Manifest) -> str:
    for each in _status(pod).get("containerStatuses") or ():
        for state in ("waiting", "terminated"):
            if found := (each.get("state") or {}).get(state):
                return str(found.get("reason") or state.capitalize())
    if _meta(pod).get("deletionTimestamp"):
        return "Terminating"
    return str(_status(pod).get("phase") or "Pending")


def _external(service: Manifest) -> str:
    spec = _spec(service)
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName"))
    ingress = (_status(service).get("loadBalancer") or {}).get("ingress") or ()
    found = [each.get("ip") or each.get("hostname") for each in ingress] + list(spec.get("externalIPs") or ())
    return ",".join(found) or ("<pending>" if spec.get("type") == "LoadBalancer" else NONE)


def _ports(service: Manifest) -> str:
    return (
        ",".join(
            f"{each['port']}{':' + str(each['nodePort']) if each.get('nodePort') else ''}/"
            f"{each.get('protocol', 'TCP')}"
            for each in _spec(service).get("ports") or ()
        )
        or NONE
    )


def _pairs(labels: Manifest | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or NONE


def _selector(selector: Manifest | None) -> str:
    found = dict(selector or {})
    parts = [f"{key}={value}" for key, value in sorted((found.get("matchLabels") or {}).items())]
    for each in found.get("matchExpressions") or ():
        values = f" ({','.join(each['values'])})" if each.get("values") else ""
        parts.append(f"{each['key']} {each['operator'].lower()}{values}")
    return ",".join(parts) or NONE


def _ready(node: Manifest) -> str:
    status = path(node, ".status.conditions[?(@.type=='Ready')].status")
    return {"True": "Ready", "False": "NotReady"}.get(str(status), "Unknown")


def _address(node: Manifest) -> str:
    return str(path(node, ".status.addresses[?(@.type=='InternalIP')].address") or NONE)


def _endpoints(slice_: Manifest) -> str:
    found = [address for each in slice_.get("endpoints") or () for address in each.get("addresses") or ()]
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return ",".join(found[:3]) + more or "<unset>"


def _about(event: Manifest) -> str:
    about = event.get("involvedObject") or {}
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


_NAME = Column("Name", lambda m: _meta(m).get("name"))
_AGE = Column("Age", lambda m: age(str(_meta(m).get("creationTimestamp", ""))))
_OWN: Mapping[str, Sequence[Column]] = {
    "Pod": (
        _NAME,
        Column("Ready", _containers),
        Column("Status", _phase),
        Column(
            "Restarts",
            lambda m: sum(each.get("restartCount", 0) for each in _status(m).get("containerStatuses") or ()),
            "integer",
        ),
        _AGE,
        Column("IP", lambda m: _status(m).get("podIP") or NONE, priority=1),
        Column("Node", lambda m: _spec(m).get("nodeName") or NONE, priority=1),
    ),
    "Deployment": (
        _NAME,
        Column("Ready", lambda m: f"{_status(m).get('readyReplicas', 0)}/{_spec(m).get('replicas', 1)}"),
        Column("Up-to-date", lambda m: _status(m).get("updatedReplicas", 0), "integer"),
        Column("Available", lambda m: _status(m).get("availableReplicas", 0), "integer"),
        _AGE,
        Column("Selector", lambda m: _selector(_spec(m).get("selector")), priority=1),
    ),
    "Service": (
        _NAME,
        Column("Type", lambda m: _spec(m).get("type", "ClusterIP")),
        Column("Cluster-IP", lambda m: _spec(m).get("clusterIP") or NONE),
        Column("External-IP", _external),
        Column("Port(s)", _ports),
        _AGE,
        Column("Selector", lambda m: _pairs(_spec(m).get("selector")), priority=1),
    ),
    "Namespace": (_NAME, Column("Status", lambda m: _status(m).get("phase") or "Active"), _AGE),
    "Node": (
        _NAME,
        Column("Status", _ready),
        _AGE,
        Column("Internal-IP", _address, priority=1),
    ),
    "ConfigMap": (_NAME, Column("Data", lambda m: len(m.get("data") or ()), "integer"), _AGE),
    "Secret": (
        _NAME,
        Column("Type", lambda m: m.get("type") or "Opaque"),
        Column("Data", lambda m: len({**(m.get("data") or {}), **(m.get("stringData") or {})}), "integer"),
        _AGE,
    ),
    "EndpointSlice": (
        _NAME,
        Column("AddressType", lambda m: m.get("addressType")),
        Column(
            "Ports", lambda m: ",".join(str(p.get("port", "")) for p in m.get("ports") or ()) or "<unset>"
        ),
        Column("Endpoints", _endpoints),
        _AGE,
    ),
    "NetworkPolicy": (_NAME, Column("Pod-Selector", lambda m: _selector(_spec(m).get("podSelector"))), _AGE),
    "Event": (
        Column("Last Seen", lambda m: age(str(m.get("lastTimestamp") or _meta(m).get("creationTimestamp")))),
        Column("Type", lambda m: m.get("type", "")),
        Column("Reason", lambda m: m.get("reason", "")),
        Column("Object", _about),
        Column("Message", lambda m: m.get("message", "")),
        Column("Name", lambda m: _meta(m).get("name"), priority=1),
    ),
}


def columns(kind: str) -> Sequence[Column]:
    """The columns of *kind*; none that are known: ()."""
    if kind in _OWN:
        return _OWN[kind]
    if kind not in KINDS or not crd.is_custom(KINDS[kind]):
        return ()
    shown = crd.columns(KINDS[kind])
    return (_NAME, *(Column(each["name"], partial(_printed, each), each["type"]) for each in shown))
