"""What is kept of each kind of object, and how it becomes a resource.

Of the kinds that Kubernetes has by the thousand only the fields that somebody reads are decoded at all;
policies are kept whole, but for their statuses: those are written by us, and would come back as news.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from cirri.engine.parse import findings
from cirri.kubeapi.served import served
from cirri.kubernetes.bridge.following import Source
from cirri.manifests import KINDS, POLICY_KINDS, Document, Problem, examine
from cirri.manifests.config import CONFIG_NAME, CONFIG_NAMESPACE
from cirri.model import Resource

NOT_KEPT = ("kubectl.kubernetes.io/last-applied-configuration",)
"""Annotations that say again what the object says."""
UNFOLLOWED = frozenset({"Deployment", "Event", "Secret"})
"""Kinds that nobody needs of an API server, and Secrets, which are followed one by one."""


class _Part(Struct, rename="camel", omit_defaults=True):
    """A mapping of which only these fields are decoded."""


class Metadata(_Part):
    """``metadata``."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[dict[str, Any]] | None = None


class _Condition(_Part):
    type: str = ""
    status: str = ""


class _Phase(_Part):
    phase: str = ""


class Whole(_Part):
    """Kinds of which everything counts that people write."""

    metadata: Metadata
    spec: Any = None
    specs: Any = None


class WithStatus(_Part):
    """Kinds whose status others read, too."""

    metadata: Metadata
    spec: Any = None
    status: Any = None


class _Namespace(_Part):
    metadata: Metadata
    status: _Phase | None = None


class _NodeSpec(_Part, rename={"pod_cidr": "podCIDR", "pod_cidrs": "podCIDRs"}):
    pod_cidr: str = ""
    pod_cidrs: list[str] | None = None
    unschedulable: bool = False
    taints: list[Any] | None = None


class _NodeStatus(_Part):
    addresses: list[Any] | None = None
    conditions: list[_Condition] | None = None


class _Node(_Part):
    metadata: Metadata
    spec: _NodeSpec | None = None
    status: _NodeStatus | None = None


class _Container(_Part):
    name: str
    image: str = ""
    ports: list[Any] | None = None


class _PodSpec(_Part):
    containers: list[_Container]
    init_containers: list[_Container] | None = None
    node_name: str = ""
    host_network: bool = False
    service_account_name: str = ""


class _Ready(_Part):
    name: str
    ready: bool = False


class _PodStatus(
    _Part, rename={"pod_ip": "podIP", "pod_ips": "podIPs", "host_ip": "hostIP", "ready": "containerStatuses"}
):
    phase: str = ""
    pod_ip: str = ""
    pod_ips: list[Any] | None = None
    host_ip: str = ""
    conditions: list[_Condition] | None = None
    ready: list[_Ready] | None = None


class _Pod(_Part):
    metadata: Metadata
    spec: _PodSpec
    status: _PodStatus | None = None


class _Endpoint(_Part):
    addresses: list[str]
    conditions: Any = None
    hostname: str = ""
    node_name: str = ""
    zone: str = ""


class _EndpointSlice(_Part):
    metadata: Metadata
    address_type: str
    endpoints: list[_Endpoint] | None = None
    ports: list[Any] | None = None


class _Data(_Part):
    metadata: Metadata
    type: str = ""
    data: dict[str, str] | None = None


_KEPT: Mapping[str, type[Struct]] = {
    "Namespace": _Namespace,
    "Node": _Node,
    "Pod": _Pod,
    "Service": WithStatus,
    "EndpointSlice": _EndpointSlice,
    "ConfigMap": _Data,
    "Secret": _Data,
}


class Refused(Exception):
    """An object that cannot be taken as it is."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__(
            "; ".join(f"{each.path}: {each.message}" if each.path else each.message for each in problems)
        )


def kinds() -> list[str]:
    """The kinds that are followed."""
    return [kind for kind in KINDS if kind not in UNFOLLOWED]


def source(kind: str) -> Source:
    """Where the API has every object of *kind* that is followed."""
    if kind == "ConfigMap":  # the cluster's configuration, and no other
        return only(kind, CONFIG_NAMESPACE, CONFIG_NAME)
    return Source(served(KINDS[kind]).path())


def only(kind: str, namespace: str, name: str) -> Source:
    """Where the API has the one object *name*."""
    return Source(served(KINDS[kind]).path(namespace), {"fieldSelector": f"metadata.name={name}"})


def reader(kind: str) -> Callable[[bytes], Struct]:
    """Decodes what is kept of an object.  The result raises msgspec.MsgspecError."""
    kept = _KEPT.get(kind, Whole if kind in POLICY_KINDS else WithStatus)
    return msgspec.json.Decoder(kept).decode


def resource(kind: str, kept: Struct) -> Resource:
    """*kept* as a resource, with the defaults that a manifest gets.  Raises :class:`Refused`."""
    manifest: dict[str, Any] = msgspec.to_builtins(kept)
    metadata = manifest["metadata"]
    if annotations := {k: v for k, v in (metadata.get("annotations") or {}).items() if k not in NOT_KEPT}:
        metadata["annotations"] = annotations
    else:
        metadata.pop("annotations", None)
    head = {"apiVersion": KINDS[kind].api_version, "kind": kind}
    found, problems = examine(Document({**head, **manifest}), lambda policy: [*findings(policy)])
    if found is None or problems:
        raise Refused(problems)
    return found
