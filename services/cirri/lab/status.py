"""What the kubelet reports of Pods and Nodes.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from cirri.lab.objects import Manifest
from cirri.lab.topology import Host

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]


class ContainerSeen(NamedTuple):
    """One container, as its processes show it."""

    name: str
    image: str
    running: bool = False
    ready: bool = False
    restarts: int = 0
    exit_code: int | None = None
    """Of a container that has ended for good."""
    reason: str = ""
    """Why it does not run, in one CamelCase word."""
    message: str = ""


def pod_status(
    *, phase: Phase, node: Host, addresses: Sequence[str], containers: Sequence[ContainerSeen], started: str
) -> Manifest:
    """``status`` of a Pod.  *started* is a time as RFC 3339 has it; "" if not started."""
    ready = phase == "Running" and bool(containers) and all(c.ready for c in containers)
    waiting = next((c for c in containers if not c.ready), None)
    return {
        "phase": phase,
        "hostIP": node.ipv4,
        "hostIPs": [{"ip": node.ipv4}, {"ip": node.ipv6}],
        **({"podIP": addresses[0]} if addresses else {}),
        **({"podIPs": [{"ip": a} for a in addresses]} if addresses else {}),
        **({"startTime": started} if started else {}),
        "conditions": [
            _condition("PodScheduled", True),
            _condition("Initialized", True),
            _condition("ContainersReady", ready, waiting),
            _condition("Ready", ready, waiting),
        ],
        "containerStatuses": [_container(c, started) for c in containers],
    }


def _condition(kind: str, holds: bool, because: ContainerSeen | None = None) -> Manifest:
    found: Manifest = {"type": kind, "status": "True" if holds else "False"}
    if not holds and because:
        found |= {
            "reason": "ContainersNotReady",
            "message": f"containers with unready status: [{because.name}]",
        }
    return found


def _container(seen: ContainerSeen, started: str) -> Manifest:
    if seen.running:
        state: Manifest = {"running": {"startedAt": started}}
    elif seen.exit_code is not None:
        reason = "Error" if seen.exit_code else "Completed"
        state = {"terminated": {"exitCode": seen.exit_code, "reason": reason}}
    else:
        state = {"waiting": {"reason": seen.reason or "ContainerCreating"}}
        if seen.message:
            state["waiting"]["message"] = seen.message
    return {
        "name": seen.name,
        "image": seen.image,
        "imageID": seen.image,
        "ready": seen.ready,
        "started": seen.running,
        "restartCount": seen.restarts,
        "state": state,
    }


def node_manifest(host: Host) -> Manifest:
    """The Node object of *host*, without status."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": host.name,
            "labels": {
                "kubernetes.io/hostname": host.name,
                "kubernetes.io/os": "linux",
                "node-role.kubernetes.io/worker": "",
            },
        },
        "spec": {},
    }


def node_status(host: Host, *, ready: bool) -> Manifest:
    """``status`` of the Node: its addresses, and whether its datapath has answered."""
    said = (
        ("CirriIsUp", "the datapath of this node is up")
        if ready
        else (
            "NetworkUnavailable",
            "the datapath of this node has not answered yet",
        )
    )
    return {
        "addresses": [
            {"type": "InternalIP", "address": host.ipv4},
            {"type": "InternalIP", "address": host.ipv6},
            {"type": "Hostname", "address": host.name},
        ],
        "conditions": [
            {"type": "Ready", "status": "True" if ready else "False", "reason": said[0], "message": said[1]}
        ],
    }
