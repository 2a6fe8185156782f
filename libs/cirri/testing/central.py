"""The central services, played for one node: the real compiler, publishing what they would."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

from cirri.engine import CONTEXT_KINDS, KINDS, Compiler, EngineConfig
from cirri.kv import Bus, Publisher
from cirri.labels import (
    LabelFilter,
    canonical,
    node_labels,
    prefix_labels,
    probes,
    reserved_number,
)
from cirri.model import (
    ACKS,
    ENDPOINTS,
    IDENTITIES,
    NODES,
    POD_CIDRS,
    POLICIES,
    RESOURCES,
    SELECTORS,
    Compiled,
    Identity,
    PodCIDRs,
    PolicyEntry,
    Resource,
    resource_key,
)

NODE = "node1"
"""Name of the node."""


class Cluster:
    """The central services, as far as a node sees them: they write these buckets, and nobody else."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.compiler = Compiler()
        self.resources: dict[str, Resource] = {}
        self.identities: dict[frozenset[str], Identity] = {}
        self.cidrs = PodCIDRs(node=NODE)
        self.revision = 0
        """Of the newest object that policies depend on."""
        self._located = 0
        """Revision at which an identity of a prefix or a node came or went last."""
        self._resources, self._identities = bus.publisher(RESOURCES), bus.publisher(IDENTITIES)
        self._selectors, self._policies = bus.publisher(SELECTORS), bus.publisher(POLICIES)
        self._cidrs = bus.publisher(POD_CIDRS)

    @property
    def writer(self) -> Publisher[Resource]:
        """Who writes bucket ``resources``: nobody else may."""
        return self._resources

    async def start(self, cidrs: Iterable[str]) -> None:
        """Make the buckets, complete and nearly empty."""
        self.cidrs = PodCIDRs(node=NODE, cidrs=tuple(cidrs))
        namespace = Resource(kind="Namespace", name="default", manifest={"metadata": {"name": "default"}})
        self.resources[resource_key("Namespace", "", "default", "")] = namespace
        for publisher in (
            self._resources,
            self._identities,
            self._selectors,
            self._policies,
            self._cidrs,
            self.bus.publisher(ENDPOINTS, "nobody"),
            self.bus.publisher(NODES, "nobody"),
            self.bus.publisher(ACKS, "nobody"),
        ):
            await publisher.start()
        await self._resources.replace(self.resources.values())
        await self._identities.replace([])
        await self._cidrs.replace([self.cidrs])
        await self.compile()
        await self._selectors.complete()
        await self._policies.complete()

    async def put(self, resource: Resource) -> int:
        """Apply any object; policies are compiled and published."""
        revision = await self._resources.put(resource)
        key = resource_key(resource.kind, resource.namespace, resource.name, resource.node)
        self.resources[key] = resource
        if resource.kind in (*KINDS, *CONTEXT_KINDS):
            self.compiler.update_resource(resource)
            await self.compile(revision)
        return revision

    async def delete(self, resource: Resource) -> int:
        """Delete it."""
        key = resource_key(resource.kind, resource.namespace, resource.name, resource.node)
        revision = await self._resources.delete(key)
        self.resources.pop(key, None)
        if resource.kind in (*KINDS, *CONTEXT_KINDS):
            self.compiler.delete_resource(key)
            await self.compile(revision)
        return revision

    async def configure(self, **data: str) -> int:
        """Make *data* the configuration; ``_`` in keys stands for ``-``."""
        given = {key.replace("_", "-"): value for key, value in data.items()}
        self.compiler.configure(EngineConfig.of(given))
        resource = Resource(
            kind="ConfigMap", namespace="kube-system", name="cirri-config", manifest={"data": given}
        )
        revision = await self.put(resource)
        await self.compile(revision)
        return revision

    async def node(self, name: str, addresses: Iterable[str], **labels: str) -> int:
        """A Node object, and the identities of both its forms."""
        manifest = {"metadata": {"name": name, "labels": labels}}
        resource = Resource(kind="Node", name=name, manifest=manifest)
        revision = await self.put(resource)
        config = self.compiler.config
        forms = node_labels(
            resource,
            addresses,
            LabelFilter.parse([]),
            by_cidr=config.nodes_by_cidr,
            by_labels=config.nodes_by_labels,
        )
        for form in forms:
            if not reserved_number(form):
                await self._locate(form)
        await self.compile(revision)
        return revision

    async def identify(self, labels: Iterable[str]) -> int:
        """The identity of a label set, allocated if need be, with its policy."""
        relevant = LabelFilter.parse([]).relevant(labels)
        if (known := self.identities.get(relevant)) is None:
            known = await self._allocate(relevant)
            await self.compile()
        return known.id

    async def release(self) -> None:
        """Prefixes that no selector names lose their identities."""
        named = {prefix for one in self.compiler.sets.values() for prefix in one.prefixes}
        kept = {frozenset(prefix_labels(ip_network(prefix))) for prefix in named}
        for labels, known in list(self.identities.items()):
            if labels not in kept and any(label.startswith("cidr:") for label in labels):
                del self.identities[labels]
                self._located = await self._identities.delete(str(known.id))
                self.compiler.remove_identity(known.id)
        await self.compile(self.revision)

    async def compile(self, revision: int = 0) -> None:
        """Publish what news there is: selectors, then rules, identities for prefixes, then the marker."""
        located = self._located
        await self._publish()
        while missing := self.compiler.missing():
            for prefix in sorted(missing):
                await self._locate(frozenset(prefix_labels(ip_network(prefix))))
            await self._publish()
        self.revision = max(self.revision, revision)
        if revision or located != self._located:
            marker = Compiled(
                resources=self.revision, selectors=self._selectors.revision, identities=self._located
            )
            await self._policies.put(PolicyEntry(compiled=marker))

    async def _publish(self) -> None:
        delta = self.compiler.flush()
        for one in delta.selectors.values():
            await self._selectors.put(one)
        for policy in delta.policies.values():
            await self._policies.put(PolicyEntry(subject=policy))
        for identity in delta.removed_policies:
            await self._policies.delete(str(identity))
        for key in delta.removed_selectors:
            await self._selectors.delete(key)

    async def _locate(self, labels: frozenset[str]) -> None:
        if labels not in self.identities:
            await self._allocate(labels)
            self._located = self._identities.revision

    async def _allocate(self, labels: frozenset[str]) -> Identity:
        known = self.identities[labels] = Identity(id=next(probes(labels)), labels=canonical(labels))
        await self._identities.put(known)
        self.compiler.add_identity(known.id, labels)
        return known
