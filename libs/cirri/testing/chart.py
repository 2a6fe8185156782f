"""What the Helm chart says of the services, written from their contracts.

``python -m cirri.testing.chart`` rewrites ``values.yaml``, ``values.schema.json`` and ``files/`` of
``deploy/chart/cirri``, and the table of capabilities in ``deploy/README.md``; ``tests/deploy/test_chart.py``
compares.  Templates iterate over ``files/services.yaml``: a service with a contract and a port below is in
the chart.
"""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from cirri.kv.wire import MAX_MESSAGE_BYTES
from cirri.manifests.kinds import KINDS
from cirri.runtime.contract import Companion, Service
from cirri.runtime.permissions import Allowed, of_people, of_service
from cirri.testing import chartvalues
from cirri.testing.docs import ROOT, services

CHART = ROOT / "deploy/chart/cirri"
README = ROOT / "deploy/README.md"
PORTS = {
    "datapath": 9970,
    "dnsproxy": 9972,
    "l7proxy": 9974,
    "flows": 9975,
    "health": 9976,
    "l2": 9977,
    "bgp": 9978,
    "sensor": 9979,
    "kubernetes": 9980,
    "identity": 9981,
    "ipam": 9982,
    "policy": 9983,
    "relay": 9984,
}
"""Where each answers /healthz, /readyz and /metrics on its node; its other processes on the next ports."""
GATES = {
    "flows": ("hubble.enabled",),
    "relay": ("hubble.enabled", "hubble.relay.enabled"),
    "l7proxy": ("l7Proxy",),
    "health": ("healthChecking",),
    "l2": ("l2announcements.enabled",),
    "bgp": ("bgpControlPlane.enabled",),
    "sensor": ("sensor.enabled",),
}
"""Services that are only there where these values are true."""
POD_NETWORK = {"relay"}
"""Those that pods' network must not wait for; all others are in their nodes' network."""
PEOPLE = ("cli",)
_NODE = "NODE"
_NOT_READ = {"Deployment", "Event"}
_WRITTEN = ("ciliumendpoints", "ciliumidentities", "ciliumnodes")


def gates(found: list[Service]) -> tuple[str, ...]:
    """Paths of the switches of the services that have one."""
    return tuple(dict.fromkeys(path for s in found for path in GATES.get(s.name, ())))


def record(service: Service, found: list[Service]) -> dict[str, Any]:
    """What templates need to know of *service*."""
    bus = permissions(service, found)
    pinned = bool(service.maps) or "BPF" in service.capabilities
    return {
        "name": service.name,
        "summary": service.summary.rstrip("."),
        "scope": service.scope,
        "processes": service.replicas,
        "port": PORTS[service.name],
        "gates": list(GATES.get(service.name, ())),
        "podNetwork": service.name in POD_NETWORK,
        "privileged": service.name == "datapath",
        "capabilities": list(service.capabilities),
        "companions": [companion(one) for one in service.companions],
        "bpffs": pinned,
        "processesOfNode": "SYS_PTRACE" in service.capabilities,
        "publish": list(bus.publish),
        "subscribe": list(bus.subscribe),
    }


def companion(one: Companion) -> dict[str, Any]:
    """A program that runs beside a service, without the bus."""
    return {"name": one.name, "command": list(one.command), "capabilities": list(one.capabilities)}


def permissions(service: Service, found: list[Service]) -> Allowed:
    """What the service may do on the bus, where all nodes' instances are one user."""
    served = {f"cirri.{service.name}.{name}" for name in service.serves}
    callers = [o.name for o in found if served & {c.replace(".{node}", "") for c in o.calls}]
    node = _NODE if service.scope == "node" else None
    allowed = of_service(service, service.name, node, (*PEOPLE, *callers))
    publish, subscribe = (tuple(re.sub(rf"\b{_NODE}\b", "*", one) for one in side) for side in allowed)
    return Allowed(publish, subscribe)


def access() -> list[dict[str, Any]]:
    """What ``kubernetes`` may do at the API server: read the kinds that Cirri knows, write statuses."""
    groups: dict[str, list[str]] = {}
    for kind in KINDS.values():
        if kind.name not in _NOT_READ:
            group, _, _ = kind.api_version.rpartition("/")
            groups.setdefault(group, []).append(kind.plural)
    own = next(group for group in groups if group.startswith("cilium"))
    rules = [
        {"apiGroups": [group], "resources": sorted(found), "verbs": ["get", "list", "watch"]}
        for group, found in sorted(groups.items())
    ]
    return [
        *rules,
        {"apiGroups": [""], "resources": ["services/status", "nodes/status"], "verbs": ["patch", "update"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["patch"]},
        {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
        {
            "apiGroups": [own],
            "resources": [f"{name}/status" for name in sorted(groups[own])],
            "verbs": ["patch", "update"],
        },
        {
            "apiGroups": [own],
            "resources": list(_WRITTEN),
            "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
        },
        {
            "apiGroups": ["apiextensions.k8s.io"],
            "resources": ["customresourcedefinitions"],
            "verbs": ["get", "list", "watch", "create", "update", "patch"],
        },
    ]


def needs(service: Service) -> str:
    """The sentence after "Needs" in the contract's words."""
    text = import_module(f"cirri.{service.name}").__doc__ or ""
    match = re.search(r"^Needs +(.*?)\n(?:\n|\S)", text, re.S | re.M)
    return " ".join(match[1].split()) if match else ""


def capabilities_table() -> str:
    """Markdown: each container, who it is, what it may, why."""
    rows = ["| container | runs | user | capabilities | why |", "|---|---|---|---|---|"]
    for s in services():
        where = "per node" if s.scope == "node" else "per cluster"
        user = "root" if s.scope == "node" else "65532"
        held = "privileged" if s.name == "datapath" else ", ".join(s.capabilities) or "none"
        rows.append(f"| `{s.name}` | {where} | {user} | {held} | {needs(s)} |")
        rows += [
            f"| `{s.name}`/`{c.name}` | {where} | {user} | {', '.join(c.capabilities) or 'none'} | {c.why} |"
            for c in s.companions
        ]
    rows += [
        "| `datapath`/`cni` | per node | root | none | puts plugin and configuration into its folders |",
        "| `nats` | its nodes | 65532 | none | the bus, with JetStream on a folder of its own |",
    ]
    return "\n".join(rows)


def files() -> dict[Path, str]:
    """Every generated file and what it must say."""
    found = services()
    values = chartvalues.table(tuple(s.name for s in found), gates(found))
    tree = chartvalues.nested(values)
    people = of_people("cli", found)
    about = {
        "maxPayload": MAX_MESSAGE_BYTES,
        "access": access(),
        "services": [record(s, found) for s in found],
        "people": [
            {"name": n, "publish": list(people.publish), "subscribe": list(people.subscribe)} for n in PEOPLE
        ],
    }
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of cirri",
        **chartvalues.schema(tree),
    }
    schema["properties"]["global"] = {"type": "object"}
    head = "# Written by python -m cirri.testing.chart from the services' contracts and keys: change those.\n"
    body, begin, rest = README.read_text().partition("<!-- capabilities:begin -->\n")
    _, end, after = rest.partition("<!-- capabilities:end -->")
    return {
        CHART / "values.yaml": head + "\n".join(chartvalues.text(tree)) + "\n",
        CHART / "values.schema.json": json.dumps(schema, indent=1) + "\n",
        CHART / "files/services.yaml": head + yaml.safe_dump(about, sort_keys=False, width=150),
        CHART / "files/config.yaml": head + yaml.safe_dump(chartvalues.ways(values), sort_keys=False),
        README: f"{body}{begin}{capabilities_table()}\n{end}{after}",
    }


def rewrite() -> None:
    """Write what the contracts say."""
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    rewrite()
