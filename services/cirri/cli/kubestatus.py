"""``cirri status`` of a cluster of Kubernetes: what its API server says of Cirri's workloads.

Pure but for :func:`read`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from cirri.cli.kubeapi import Api

Object = Mapping[str, Any]
LOGO = ("    /¯¯\\", " /¯¯\\__/¯¯\\", " \\__/¯¯\\__/", " /¯¯\\__/¯¯\\", " \\__/¯¯\\__/", "    \\__/")
PARTS = (
    ("Cirri", ("cirri-datapath",)),
    ("Operator", ("cirri-kubernetes", "cirri-identity", "cirri-ipam", "cirri-policy")),
    ("Envoy DaemonSet", ("cirri-l7proxy",)),
    ("Hubble Relay", ("cirri-relay",)),
    ("NATS", ("cirri-nats",)),
    ("BGP", ("cirri-bgp",)),
)
"""Lines beside the logo, and the workloads each is about."""
WIDTH = 23
PART_OF = "app.kubernetes.io/part-of=cirri"


class Workload(Struct, frozen=True, kw_only=True):
    """A DaemonSet, Deployment or StatefulSet."""

    kind: str
    name: str
    desired: int
    ready: int
    available: int
    outdated: int = 0
    """Pods that are not of the newest template, or a status that is older than the object."""

    @property
    def ok(self) -> bool:
        """Whether all of it works."""
        return self.ready >= self.desired and self.available >= self.desired and not self.outdated


class ClusterStatus(Struct, frozen=True, kw_only=True):
    """What ``-o json`` prints."""

    workloads: tuple[Workload, ...]
    containers: dict[str, dict[str, int]]
    """Workload -> state of its pods (``Running``, ...) -> how many."""
    images: dict[str, dict[str, int]]
    """Workload -> image -> how many containers."""
    managed: int
    pods: int
    """Pods of the cluster that are not in their node's network, and how many of them have an endpoint."""
    errors: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether everything works."""
        return not self.errors


def read(api: Api, namespace: str) -> ClusterStatus:
    """Asks *api*.  Raises: NoServer."""
    apps = f"/apis/apps/v1/namespaces/{namespace}"
    kinds = ("daemonsets", "deployments", "statefulsets")
    workloads = [each for kind in kinds for each in api.all(f"{apps}/{kind}", PART_OF)]
    endpoints = api.all("/apis/cilium.io/v2/ciliumendpoints")
    return examine(workloads, api.all("/api/v1/pods"), endpoints, namespace)


def workload(manifest: Object) -> Workload:
    """What *manifest* says of itself."""
    spec, status = manifest.get("spec") or {}, manifest.get("status") or {}
    if manifest["kind"] == "DaemonSet":
        desired = int(status.get("desiredNumberScheduled", 0))
        ready, available = status.get("numberReady", 0), status.get("numberAvailable", 0)
        updated = status.get("updatedNumberScheduled", 0)
    else:
        desired = int(spec.get("replicas", 1))
        ready = status.get("readyReplicas", 0)
        available = status.get("availableReplicas", ready)
        updated = status.get("updatedReplicas", 0)
    stale = status.get("observedGeneration", 0) < manifest["metadata"].get("generation", 0)
    outdated = max(desired - int(updated), int(stale))
    about = (manifest["kind"], manifest["metadata"]["name"])
    return Workload(
        kind=about[0],
        name=about[1],
        desired=desired,
        ready=int(ready),
        available=int(available),
        outdated=outdated,
    )


def examine(
    workloads: Iterable[Object], pods: Sequence[Object], endpoints: Iterable[Object], namespace: str
) -> ClusterStatus:
    """All of it.  *pods* and *endpoints* (CiliumEndpoints): of the whole cluster."""
    found = tuple(sorted(map(workload, workloads), key=lambda w: (w.kind, w.name)))
    containers: dict[str, Counter[str]] = {}
    images: dict[str, Counter[str]] = {}
    errors = [] if found else [f"no workload of Cirri in namespace {namespace}: is it installed?"]
    for one in found:
        if one.ready < one.desired:
            errors.append(f"{one.name}: {one.desired - one.ready} of {one.desired} pods are not ready")
        elif one.available < one.desired:
            errors.append(
                f"{one.name}: {one.desired - one.available} of {one.desired} pods are not available"
            )
        elif one.outdated:
            errors.append(f"{one.name}: {one.outdated} of {one.desired} pods are not updated yet")
        if one.kind == "DaemonSet" and not one.desired:
            errors.append(f"{one.name}: no node takes its pods")
        containers[one.name], images[one.name] = Counter(), Counter()
    for pod in pods:
        name = _workload_of(pod, containers)
        if pod["metadata"].get("namespace") != namespace or name is None:
            continue
        status = pod.get("status") or {}
        containers[name][status.get("phase", "Unknown")] += 1
        images[name].update(each["image"] for each in pod["spec"].get("containers", ()))
        for each in status.get("containerStatuses") or ():
            waiting = (each.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
                said = f": {waiting['message']}" if waiting.get("message") else ""
                errors.append(f"{pod['metadata']['name']}/{each['name']}: {waiting['reason']}{said}")
    known = {(e["metadata"].get("namespace"), e["metadata"]["name"]) for e in endpoints}
    own = [
        (pod["metadata"].get("namespace"), pod["metadata"]["name"])
        for pod in pods
        if not pod["spec"].get("hostNetwork")
        and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    ]
    return ClusterStatus(
        workloads=found,
        containers={name: dict(sorted(counts.items())) for name, counts in containers.items()},
        images={name: dict(sorted(counts.items())) for name, counts in images.items()},
        managed=sum(each in known for each in own),
        pods=len(own),
        errors=tuple(errors),
    )


def _workload_of(pod: Object, known: Iterable[str]) -> str | None:
    said = (pod["metadata"].get("labels") or {}).get("app.kubernetes.io/name", "")
    name = f"cirri-{said.removeprefix('cirri-')}"
    return name if name in set(known) else None


def text(status: ClusterStatus) -> str:
    """As ``cilium status`` prints it."""
    lines = [f"{art:14} {says}".rstrip() for art, says in zip(LOGO, _parts(status), strict=True)]
    lines.append("")
    for one in status.workloads:
        ready, available = f"{one.ready}/{one.desired}", f"{one.available}/{one.desired}"
        counts = f"Desired: {one.desired}, Ready: {ready}, Available: {available}"
        lines.append(f"{one.kind:{WIDTH}}{one.name:24} {counts}")
    for title, found in (("Containers:", status.containers), ("Image versions", status.images)):
        for name, by in found.items():
            shown = ", ".join(f"{what}: {number}" for what, number in by.items()) or "none"
            lines.append(f"{title:{WIDTH}}{name:24} {shown}")
            title = ""  # noqa: PLW2901 - said once
    lines.append(f"{'Cluster Pods:':{WIDTH}}{status.managed}/{status.pods} managed by Cirri")
    for number, error in enumerate(status.errors):
        lines.append(f"{'' if number else 'Errors:':{WIDTH}}{error}")
    return "\n".join(lines)


def _parts(status: ClusterStatus) -> list[str]:
    found = {one.name: one for one in status.workloads}
    lines = []
    for title, names in PARTS:
        there = [found[name] for name in names if name in found]
        bad = [one.name for one in there if not one.ok]
        says = "disabled" if not there else f"{len(bad)} errors" if bad else "OK"
        lines.append(f"{title + ':':20}{says}")
    return lines
