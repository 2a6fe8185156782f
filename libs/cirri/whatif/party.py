"""Who takes part: pods, nodes and what is outside, by name and labels.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Literal, NamedTuple

from cirri.engine import EngineConfig
from cirri.labels import LabelFilter, api_server_addresses, node_labels, pod_labels
from cirri.model import Resource
from cirri.whatif.sources import TEMPLATES

Address = IPv4Address | IPv6Address
Role = Literal["endpoint", "node", "peer"]


class Party(NamedTuple):
    """One end of a conversation."""

    name: str
    labels: frozenset[str]
    """Of its identity; of an address outside without what policies say about prefixes.  Empty where an
    address is all that is known."""
    role: Role = "peer"
    """``endpoint`` and ``node`` have a policy of their own, ``peer`` has none here."""
    remote: frozenset[str] | None = None
    """Of a Node: its labels as seen from other nodes; None: they are the same for everybody."""
    node: str = ""
    """The Node that it is, or that it runs on, if that is known."""
    outside: Address | None = None
    """Its address, if it is outside the cluster: then prefixes that policies name decide what it is."""
    addresses: tuple[Address, ...] = ()
    many: bool = False
    """Several pods of one template: what it says to itself, one of them says to another."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the labels of everybody depend on."""

    config: EngineConfig = field(default_factory=EngineConfig)
    filter: LabelFilter = field(default_factory=LabelFilter.parse)
    namespaces: Mapping[str, Resource] = field(default_factory=dict)
    api_servers: frozenset[str] = frozenset()
    """Addresses of the API server."""

    @classmethod
    def of(cls, resources: Sequence[Resource], data: Mapping[str, str]) -> Setting:
        """From the objects and the configuration.  Raises InvalidConfig, InvalidLabelFilter."""
        return cls(
            EngineConfig.of(data),
            LabelFilter.parse(data.get("labels", "").split()),
            {one.name: one for one in resources if one.kind == "Namespace"},
            api_server_addresses(one for one in resources if one.kind == "EndpointSlice"),
        )


def parties(resources: Iterable[Resource], setting: Setting) -> Iterator[Party]:
    """Everybody whom *resources* make: Pods, what has a template of pods, Nodes."""
    known = list(resources)
    names = {(one.kind, one.namespace, one.name) for one in known}
    taken: set[str] = set()
    for one in sorted(known, key=lambda one: one.kind in TEMPLATES):
        if one.kind == "Node":
            yield _node(one, setting)
        elif one.kind in TEMPLATES and any((kind, one.namespace, n) in names for kind, n in _owners(one)):
            continue  # what owns it stands for it
        elif one.kind == "Pod" or one.kind in TEMPLATES:
            name = f"{one.namespace}/{one.name}"
            if name in taken:
                name = f"{one.namespace}/{one.kind.lower()}/{one.name}"
            taken.add(name)
            if (pod := _pod_of(one)) is not None:
                yield _pod(name, pod, setting, many=one.kind in TEMPLATES)


def in_host_network(resources: Iterable[Resource]) -> list[str]:
    """Names of pods that share their node's network: to policies they are the node."""
    found = []
    for one in resources:
        pod = _pod_of(one) if one.kind == "Pod" or one.kind in TEMPLATES else None
        if (one.kind == "Pod" or one.kind in TEMPLATES) and pod is None:
            found.append(f"{one.namespace}/{one.name}")
    return found


def pods(resources: Iterable[Resource]) -> Iterator[Resource]:
    """Every Pod that *resources* are or make, one for each template, not those in their node's network."""
    for one in resources:
        if (one.kind == "Pod" or one.kind in TEMPLATES) and (pod := _pod_of(one)) is not None:
            yield pod


def _pod_of(resource: Resource) -> Resource | None:
    """The Pod that *resource* is or makes; None if it uses its node's network."""
    manifest: Any = resource.manifest
    for step in TEMPLATES.get(resource.kind, ()):
        manifest = manifest[step]
    if (manifest.get("spec") or {}).get("hostNetwork"):
        return None
    return Resource(kind="Pod", namespace=resource.namespace, name=resource.name, manifest=manifest)


def _pod(name: str, pod: Resource, setting: Setting, *, many: bool) -> Party:
    labels = pod_labels(pod, setting.namespaces.get(pod.namespace), setting.config.cluster)
    status = pod.manifest.get("status") or {}
    listed = [each.get("ip") for each in status.get("podIPs") or ()] or [status.get("podIP")]
    return Party(
        name,
        setting.filter.relevant(labels),
        "endpoint",
        node=(pod.manifest.get("spec") or {}).get("nodeName", ""),
        addresses=_addresses(listed),
        many=many,
    )


def _node(node: Resource, setting: Setting) -> Party:
    listed = (node.manifest.get("status") or {}).get("addresses") or ()
    addresses = _addresses(each.get("address") for each in listed if str(each.get("type")).endswith("IP"))
    found = node_labels(
        node,
        map(str, addresses),
        setting.filter,
        by_cidr=setting.config.nodes_by_cidr,
        by_labels=setting.config.nodes_by_labels,
        api_server=not setting.api_servers.isdisjoint(map(str, addresses)),
    )
    return Party(f"node:{node.name}", found.host, "node", found.remote, node.name, addresses=addresses)


def _addresses(texts: Iterable[Any]) -> tuple[Address, ...]:
    """Those of *texts* that are addresses: a status is written by components and not checked."""
    found = []
    for text in texts:
        try:
            found.append(ip_address(str(text or "")))
        except ValueError:
            continue
    return tuple(found)


def _owners(resource: Resource) -> Iterator[tuple[str, str]]:
    for owner in (resource.manifest.get("metadata") or {}).get("ownerReferences") or ():
        yield owner["kind"], owner["name"]
