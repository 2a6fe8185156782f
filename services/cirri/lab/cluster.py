"""The objects of the lab's cluster, sorted by kind; and what to do about them next.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cirri.lab import deployments, slices
from cirri.lab.objects import Manifest, Ref, condition, ref, spec, status
from cirri.lab.scheduling import assign
from cirri.lab.status import node_status
from cirri.lab.topology import Topology
from cirri.model import NodeStatus, PodCIDRs, Resource

DNS_SERVICE = Ref("Service", "kube-system", "kube-dns")
DNS_ADDRESS = "10.96.0.10"
"""Where pods ask until the Service says otherwise."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Whole states of the buckets that the lab reads."""

    objects: Mapping[Ref, Resource]
    cidrs: Sequence[PodCIDRs] = ()
    nodes: Sequence[NodeStatus] = ()

    def kind(self, kind: str) -> list[Resource]:
        """Every object of *kind*."""
        return [r for r in self.objects.values() if r.kind == kind]


@dataclass(frozen=True, slots=True)
class Step:
    """What the lab asks of the API server now."""

    apply: tuple[Manifest, ...] = ()
    update: tuple[Manifest, ...] = ()
    """Changes of objects that must not be made anew if somebody deleted them meanwhile."""
    statuses: tuple[Manifest, ...] = ()
    delete: tuple[Ref, ...] = field(default=())


def sort(resources: Iterable[Resource]) -> dict[Ref, Resource]:
    """By name.  A Pod that was just scheduled stands under two keys for an instant: the one with
    a node counts.
    """
    found: dict[Ref, Resource] = {}
    for resource in resources:
        known = found.get(ref(resource))
        if known is None or (resource.node and not known.node):
            found[ref(resource)] = resource
    return found


def next_step(cluster: Cluster, topology: Topology, suffix: Callable[[], str]) -> Step:
    """One round of every controller but the kubelet."""
    pods = cluster.kind("Pod")
    made = deployments.plan(cluster.kind("Deployment"), pods, suffix)
    staying = [p for p in pods if ref(p) not in made.delete]
    seats = assign(staying, cluster.kind("Node"))
    serving = slices.plan(cluster.kind("Service"), staying, cluster.kind("EndpointSlice"))
    return Step(
        apply=(*made.create, *serving.apply),
        update=tuple(_seated(cluster.objects[pod], node) for pod, node in seats.items()),
        statuses=(*made.statuses, *_node_statuses(cluster, topology)),
        delete=(*made.delete, *serving.delete),
    )


def _seated(pod: Resource, node: str) -> Manifest:
    return {**pod.manifest, "spec": {**spec(pod), "nodeName": node}}


def _node_statuses(cluster: Cluster, topology: Topology) -> list[Manifest]:
    """Nodes of this lab whose status does not say what their datapath says."""
    up = {n.node for n in cluster.nodes if n.pod_cidrs}
    result = []
    for node in cluster.kind("Node"):
        if node.name in topology.node_names:
            wanted = node_status(topology.host(node.name), ready=node.name in up)
            if status(node) != wanted:
                result.append(
                    {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name}, "status": wanted}
                )
    return result


def pod_routes(cluster: Cluster) -> dict[str, str]:
    """Pod range -> address of the node that has it, of the same family."""
    addresses = {n.node: n.addresses for n in cluster.nodes}
    result = {}
    for entry in cluster.cidrs:
        for cidr in entry.cidrs:
            via = [a for a in addresses.get(entry.node, ()) if (":" in a) == (":" in cidr)]
            if via:
                result[cidr] = via[0]
    return result


def nameservers(cluster: Cluster) -> list[str]:
    """What pods find in their resolv.conf."""
    service = cluster.objects.get(DNS_SERVICE)
    address = spec(service).get("clusterIP") if service else None
    return [address if address and address != "None" else DNS_ADDRESS]


def progress(cluster: Cluster, topology: Topology) -> dict[str, object]:
    """How far the lab has come, for ``up``: nodes that are ready, and whether DNS answers."""
    ready = sorted(
        n.name for n in cluster.kind("Node") if n.name in topology.node_names and condition(n, "Ready")
    )
    dns_slices = [
        s
        for s in cluster.kind("EndpointSlice")
        if s.namespace == DNS_SERVICE.namespace
        and (s.manifest.get("metadata") or {}).get("labels", {}).get(slices.SERVICE_LABEL) == DNS_SERVICE.name
    ]
    answering = any(
        (e.get("conditions") or {}).get("ready")
        for s in dns_slices
        for e in s.manifest.get("endpoints") or []
    )
    return {"nodes": ready, "dns": answering}
