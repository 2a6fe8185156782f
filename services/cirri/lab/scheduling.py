"""Which node runs which Pod.  Pure: the same Pods and Nodes give the same answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from cirri.lab.objects import Ref, condition, labels, owner_uid, ref, spec
from cirri.model import Resource

UNSCHEDULABLE = "no node of the lab matches its nodeSelector"


def assign(pods: Iterable[Resource], nodes: Iterable[Resource]) -> Mapping[Ref, str]:
    """Nodes for the Pods that have none: evenly, first per controller, then over all.

    Pods that no node suits are absent from the result, and stay Pending.
    """
    ready = sorted((n for n in nodes if usable(n)), key=lambda n: (len(n.name), n.name))
    load: Counter[str] = Counter()
    siblings: Counter[tuple[str, str]] = Counter()
    waiting = []
    for pod in pods:
        if pod.node:
            load[pod.node] += 1
            siblings[owner_uid(pod), pod.node] += 1
        else:
            waiting.append(pod)
    result: dict[Ref, str] = {}
    for pod in sorted(waiting, key=lambda p: (p.namespace, p.name)):
        fitting = [n for n in ready if suits(pod, n)]
        if not fitting:
            continue
        owner = owner_uid(pod)
        best = min(fitting, key=lambda n: (siblings[owner, n.name] if owner else 0, load[n.name]))
        result[ref(pod)] = best.name
        load[best.name] += 1
        siblings[owner, best.name] += 1
    return result


def usable(node: Resource) -> bool:
    """Whether the node takes new Pods."""
    return condition(node, "Ready") and not spec(node).get("unschedulable")


def suits(pod: Resource, node: Resource) -> bool:
    """Whether the Pod's ``nodeSelector`` selects the node."""
    found = labels(node)
    return all(found.get(k) == v for k, v in (spec(pod).get("nodeSelector") or {}).items())
