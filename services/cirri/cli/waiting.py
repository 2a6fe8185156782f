"""``--wait``: which nodes have not acknowledged what was asked for.  Pure, and one loop around it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cirri.errors import CirriError
from cirri.manifests.api import Result
from cirri.manifests.config import CONFIG_NAME
from cirri.manifests.kinds import POLICY_KINDS
from cirri.model import ACKS, NODES, RESOURCES, Ack, NodeStatus, Resource, resource_key

if TYPE_CHECKING:
    from cirri.kv import Bus

_SERVICE_LABEL = "kubernetes.io/service-name"
_DATAPATH = frozenset({"Service", "EndpointSlice", "Node"})
POLL_S = 0.02
"""How often the buckets are looked at when no news comes."""


class Goal(NamedTuple):
    """Revisions of bucket ``resources`` that every node must have realized."""

    policy: int = 0
    datapath: int = 0


def goal_of(results: Iterable[Result]) -> Goal:
    """What the nodes must acknowledge for *results* to be in force."""
    policy = datapath = 0
    for result in results:
        is_config = result.kind == "ConfigMap" and result.name == CONFIG_NAME
        if result.kind in POLICY_KINDS or is_config:
            policy = max(policy, result.revision)
        if result.kind in _DATAPATH:
            datapath = max(datapath, result.revision)
    return Goal(policy, datapath)


def behind(
    goal: Goal, nodes: Iterable[str], statuses: Mapping[str, NodeStatus], acks: Mapping[str, Ack]
) -> dict[str, str]:
    """Nodes that have not realized *goal*, and how far they are."""
    late = {}
    for node in sorted(nodes):
        status = statuses.get(node)
        if status is None:
            late[node] = "has not reported"
            continue
        parts, ack = [], acks.get(node) or Ack(node=node)
        if ack.policy_revision < goal.policy:
            parts.append(f"policies up to {ack.policy_revision} of {goal.policy}")
        if ack.resources_revision < goal.datapath:
            parts.append(f"services up to {ack.resources_revision} of {goal.datapath}")
        if parts:
            late[node] = " and ".join(parts) + "".join(f"; {error}" for error in status.errors)
    return late


def unready(results: Iterable[Result], objects: Mapping[tuple[str, str, str], Resource]) -> dict[str, str]:
    """Pods and Deployments of *results* whose containers are not ready yet, and what they say."""
    late = {}
    for result in results:
        resource = objects.get((result.kind, result.namespace, result.name))
        if resource is None or result.action == "deleted":
            continue
        status = resource.manifest.get("status", {})
        if result.kind == "Deployment":
            wanted, there = resource.manifest["spec"]["replicas"], status.get("availableReplicas", 0)
            if there < wanted or status.get("observedGeneration", 0) < _generation(resource):
                late[f"deployment {result.name}"] = f"{there} of {wanted} replicas available"
        elif result.kind == "Pod" and not _ready(status):
            late[f"pod {result.name}"] = status.get("phase", "Pending")
    return late


def _generation(resource: Resource) -> int:
    return int(resource.manifest["metadata"].get("generation", 0))


def _ready(status: Mapping[str, object]) -> bool:
    conditions = status.get("conditions")
    if status.get("phase") == "Succeeded":
        return True
    return isinstance(conditions, list) and any(
        c.get("type") == "Ready" and c.get("status") == "True" for c in conditions
    )


def unlisted(service: Resource, pods: Iterable[Resource], slices: Iterable[Resource]) -> frozenset[str]:
    """Addresses of ready pods that *service* selects and that none of its *slices* offers yet."""
    spec = service.manifest.get("spec", {})
    selector, families = spec.get("selector"), spec.get("ipFamilies", ["IPv4", "IPv6"])
    if not selector:
        return frozenset()
    wanted = {
        entry["ip"]
        for pod in pods
        if pod.namespace == service.namespace
        and selector.items() <= pod.manifest["metadata"].get("labels", {}).items()
        and _ready(pod.manifest.get("status", {}))
        for entry in pod.manifest["status"].get("podIPs", [])
        if ("IPv6" if ":" in entry["ip"] else "IPv4") in families
    }
    offered = {
        address
        for item in slices
        for endpoint in item.manifest.get("endpoints", [])
        if endpoint.get("conditions", {}).get("ready", True)
        for address in endpoint["addresses"]
    }
    return frozenset(wanted - offered)


def _slices_of(service: Resource, slices: Mapping[str, Resource]) -> dict[str, Resource]:
    return {
        key: item
        for key, item in slices.items()
        if item.namespace == service.namespace
        and item.manifest["metadata"].get("labels", {}).get(_SERVICE_LABEL) == service.name
    }


class NotAcknowledged(CirriError):
    """Time is up and something is not in force."""

    hint = "It may still come into force: see `cirri status`"

    def __init__(self, timeout_s: float, late: Mapping[str, str]) -> None:
        self.late = dict(late)
        who = "; ".join(f"{name}: {how}" for name, how in late.items())
        super().__init__(f"not in force everywhere after {timeout_s:g} s: {who}")


async def acknowledged(bus: Bus, results: Sequence[Result], timeout_s: float) -> None:
    """Returns once every node has realized *results*, their pods are ready, and their Services lead
    to every ready pod.

    Raises :class:`NotAcknowledged`.
    """
    goal = goal_of(results)
    wanted = [r for r in results if r.kind in {"Pod", "Deployment"} and r.action != "deleted"]
    served = {(r.namespace, r.name) for r in results if r.kind == "Service" and r.action != "deleted"}
    deadline = time.monotonic() + timeout_s
    async with (
        bus.table(NODES) as statuses,
        bus.table(ACKS) as acks,
        bus.table(RESOURCES, resource_key("Node", "", "*", "*")) as nodes,
        bus.table(RESOURCES, resource_key("Pod", "*", "*", "*")) as pods,
        bus.table(RESOURCES, resource_key("Deployment", "*", "*", "*")) as deployments,
        bus.table(RESOURCES, resource_key("Service", "*", "*", "*")) as services,
        bus.table(RESOURCES, resource_key("EndpointSlice", "*", "*", "*")) as slices,
    ):
        # Not the statuses and acks: nobody completes these buckets while there is no node.
        tables = (nodes, pods, deployments, services, slices)
        while True:
            late = {"bucket resources": "cannot be read"}
            if all(table.ready.is_set() for table in tables):
                objects = {
                    (r.kind, r.namespace, r.name): r
                    for r in ([*pods.values(), *deployments.values()] if wanted else [])
                }
                late = unready(wanted, objects)
                newest = goal.datapath
                for service in services.values():
                    if (service.namespace, service.name) in served:
                        own = _slices_of(service, slices)
                        if missing := unlisted(service, pods.values(), own.values()):
                            late[f"service {service.name}"] = f"does not lead to {', '.join(sorted(missing))}"
                        newest = max([newest, *map(slices.revision_of, own)])
                late |= behind(
                    Goal(goal.policy, newest),
                    [node.name for node in nodes.values()],
                    {status.node: status for status in statuses.values()},
                    {ack.node: ack for ack in acks.values()},
                )
            if not late:
                return
            if time.monotonic() >= deadline:
                raise NotAcknowledged(timeout_s, late)
            await asyncio.sleep(POLL_S)
