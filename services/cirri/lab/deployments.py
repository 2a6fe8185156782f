"""Deployments -> Pods: what to create and what to delete.  Pure."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cirri.lab.objects import Manifest, Ref, condition, labels, metadata, owner_uid, ref, spec, status, uid
from cirri.model import Resource

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""What Kubernetes builds suffixes from: no vowels, so no words."""
SURGE = 1
"""Pods beyond ``replicas`` while a new template replaces an old one."""
HASH_LABEL = "pod-template-hash"


@dataclass(frozen=True, slots=True)
class PodPlan:
    """The next step towards what the Deployments want; repeated until it is empty."""

    create: tuple[Manifest, ...] = ()
    delete: tuple[Ref, ...] = ()
    statuses: tuple[Manifest, ...] = ()
    """Deployments (kind, metadata.name, metadata.namespace, status) whose status is out of date."""


def plan(deployments: Iterable[Resource], pods: Iterable[Resource], suffix: Callable[[], str]) -> PodPlan:
    """Compare Deployments with the Pods they own.

    *suffix* returns five random characters of :data:`ALPHABET`.  Pods whose Deployment is gone
    are deleted; Pods of an old template are replaced at most :data:`SURGE` at a time, and only
    once their successors are ready.
    """
    wanted = {uid(d): d for d in deployments}
    owned: dict[str, list[Resource]] = {key: [] for key in wanted}
    create: list[Manifest] = []
    delete: list[Ref] = []
    for pod in sorted(pods, key=lambda p: (p.namespace, p.name)):
        owner = owner_uid(pod)
        if owner in owned:
            owned[owner].append(pod)
        elif _made_by_deployment(pod):
            delete.append(ref(pod))
    statuses = []
    for key, deployment in wanted.items():
        new, old = _split(deployment, owned[key])
        more, fewer = _step(deployment, new, old)
        create += [_pod(deployment, suffix()) for _ in range(more)]
        delete += [ref(pod) for pod in fewer]
        if (seen := _status(deployment, new, old)) != status(deployment):
            statuses.append(_with_status(deployment, seen))
    return PodPlan(tuple(create), tuple(delete), tuple(statuses))


def template_hash(deployment: Resource) -> str:
    """Ten characters that change exactly when the pod template does."""
    text = json.dumps(spec(deployment).get("template") or {}, sort_keys=True, separators=(",", ":"))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    chars = []
    for _ in range(10):
        number, digit = divmod(number, len(ALPHABET))
        chars.append(ALPHABET[digit])
    return "".join(chars)


def _split(deployment: Resource, pods: list[Resource]) -> tuple[list[Resource], list[Resource]]:
    current = template_hash(deployment)
    new = [p for p in pods if labels(p).get(HASH_LABEL) == current]
    return new, [p for p in pods if labels(p).get(HASH_LABEL) != current]


def _step(deployment: Resource, new: list[Resource], old: list[Resource]) -> tuple[int, list[Resource]]:
    """How many Pods to create now, and which to delete."""
    replicas = int(spec(deployment).get("replicas", 1))
    more = max(0, min(replicas - len(new), replicas + SURGE - len(new) - len(old)))
    # Pods that are not ready serve nobody: they go first, among equals the youngest name.
    surplus = sorted(new, key=_ready)[: max(0, len(new) - replicas)]
    spare = sum(map(_ready, new)) + sum(map(_ready, old)) - replicas
    going = [p for p in old if not _ready(p)] + [p for p in old if _ready(p)][: max(0, spare)]
    return more, surplus + going


def _ready(pod: Resource) -> bool:
    return condition(pod, "Ready")


def _made_by_deployment(pod: Resource) -> bool:
    return any(o.get("kind") == "Deployment" for o in metadata(pod).get("ownerReferences") or [])


def _pod(deployment: Resource, suffix: str) -> Manifest:
    template = copy.deepcopy(spec(deployment).get("template") or {})
    meta = template.get("metadata") or {}
    digest = template_hash(deployment)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{deployment.name}-{digest}-{suffix}",
            "namespace": deployment.namespace,
            "labels": {**(meta.get("labels") or {}), HASH_LABEL: digest},
            **({"annotations": meta["annotations"]} if meta.get("annotations") else {}),
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "name": deployment.name,
                    "uid": uid(deployment),
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": template.get("spec") or {},
    }


def _status(deployment: Resource, new: list[Resource], old: list[Resource]) -> Manifest:
    ready = sum(map(_ready, new)) + sum(map(_ready, old))
    return {
        "observedGeneration": int(metadata(deployment).get("generation", 1)),
        "replicas": len(new) + len(old),
        "updatedReplicas": len(new),
        "readyReplicas": ready,
        "availableReplicas": ready,
    }


def _with_status(deployment: Resource, seen: Manifest) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": deployment.name, "namespace": deployment.namespace},
        "status": seen,
    }
