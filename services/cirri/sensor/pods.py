"""Which pod a process belongs to: by its cgroup's name where a kubelet gave it one, else by its network.

Numbers of network namespaces are joined with pods through the node's devices: a pod's device has its other
end in the pod's namespace.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cirri.model import Endpoint, Resource
from cirri.model.runtimeevents import PodRef
from cirri.netlink import Channel
from cirri.netlink.peers import number_of, peers
from cirri.sensor import procfs
from cirri.sensor.cgroups import Cgroups, place

AGAIN_S = 0.5
"""Between two looks for a namespace that is no pod's yet."""
UNKNOWN = 1024
"""Namespaces that are no pod's and are remembered."""


class Pods:
    """The pods of one node."""

    def __init__(self, cgroups: Cgroups, scope: Path) -> None:
        """*scope*: the node's cgroup, whose processes may show a namespace that an event names."""
        self._cgroups, self._scope = cgroups, scope
        self._own = procfs.namespace(os.getpid(), "net")
        self._channel = Channel()
        self._endpoints: dict[str, Endpoint] = {}
        """By device."""
        self._resources: dict[tuple[str, str], Resource] = {}
        self._by_uid: dict[str, Resource] = {}
        self._by_net: dict[int, str] = {}
        """Namespace -> device."""
        self._asked: dict[int, float] = {}
        self._refs: dict[tuple[str, str], PodRef] = {}

    def learn(self, endpoints: Iterable[Endpoint], pods: Iterable[Resource]) -> None:
        """The node's endpoints and Pods are these."""
        self._endpoints = {each.interface: each for each in endpoints}
        self._resources = {(each.namespace, each.name): each for each in pods}
        self._by_uid = {_uid(each): each for each in self._resources.values()}
        self._by_net = {net: device for net, device in self._by_net.items() if device in self._endpoints}
        self._asked.clear()
        self._refs.clear()

    def pod_of(self, cgroup: int, net: int, pid: int) -> PodRef | None:
        """The pod of a process of that cgroup and network namespace; *pid*: one that is in it, or was."""
        where = place(self._cgroups.path(cgroup)) if cgroup else None
        if where is not None and (pod := self._by_uid.get(where.pod_uid)):
            return self._ref(pod.namespace, pod.name, where.container_id)
        if not net or net == self._own:
            return None
        device = self._by_net.get(net) or self._find(net, pid)
        endpoint = self._endpoints.get(device or "")
        if endpoint is None:
            return None
        return self._ref(endpoint.namespace, endpoint.pod, where.container_id if where else "", endpoint)

    def close(self) -> None:
        """Give the socket back."""
        self._channel.close()

    def _find(self, net: int, pid: int) -> str | None:
        now = time.monotonic()
        if now - self._asked.get(net, -AGAIN_S) < AGAIN_S:
            return None
        if len(self._asked) > UNKNOWN:
            self._asked.clear()
        self._asked[net] = now
        devices = {number: name for name, number in peers(self._channel).items()}
        for each in (pid, *procfs.members(self._scope)):
            found = procfs.namespace(each, "net")
            if not found or found in self._by_net or found == self._own:
                if found == net:
                    break
                continue
            with suppress(OSError):
                fd = os.open(f"/proc/{each}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
                try:
                    number = number_of(self._channel, fd)
                    found = os.fstat(fd).st_ino
                finally:
                    os.close(fd)
                if number in devices and devices[number] in self._endpoints:
                    self._by_net[found] = devices[number]
        return self._by_net.get(net)

    def _ref(self, namespace: str, name: str, container_id: str, endpoint: Endpoint | None = None) -> PodRef:
        """What is told of the pod."""
        plain = self._refs.get((namespace, name))
        resource = self._resources.get((namespace, name))
        if plain is None:
            endpoint = endpoint or next(
                (e for e in self._endpoints.values() if (e.namespace, e.pod) == (namespace, name)), None
            )
            labels = tuple(each for each in endpoint.labels if each.startswith("k8s:")) if endpoint else ()
            plain = self._refs[namespace, name] = PodRef(namespace=namespace, name=name, labels=labels)
        container = _container(resource, container_id)
        if not container and not container_id:
            return plain
        return PodRef(
            namespace=namespace,
            name=name,
            labels=plain.labels,
            container=str(container.get("name") or ""),
            container_id=container_id,
            image=str(container.get("image") or ""),
        )


def _container(pod: Resource | None, container_id: str) -> Mapping[str, Any]:
    """The container of that id; without one, that of a pod that has but one."""
    if pod is None:
        return {}
    if container_id:
        return next((c for c in _statuses(pod) if str(c.get("containerID", "")).endswith(container_id)), {})
    containers = (pod.manifest.get("spec") or {}).get("containers") or []
    return containers[0] if len(containers) == 1 else {}


def _statuses(pod: Resource) -> Iterator[Mapping[str, Any]]:
    status = pod.manifest.get("status") or {}
    for name in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        yield from status.get(name) or ()


def _uid(pod: Resource) -> str:
    return str((pod.manifest.get("metadata") or {}).get("uid") or "")
