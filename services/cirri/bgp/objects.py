"""From the objects that users wrote to the sessions of one node.  Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface
from typing import Any, NamedTuple

from cirri.engine.labelselector import requirements
from cirri.engine.rule import Findings
from cirri.engine.select import LabelSet, Requirement
from cirri.loadbalancer.endpoints import version_of
from cirri.model import NodeStatus, Resource
from cirri.model.bgp import Drain

CLUSTER, PEER, ADVERTISEMENT = "CiliumBGPClusterConfig", "CiliumBGPPeerConfig", "CiliumBGPAdvertisement"
NODE, OVERRIDE, LEGACY = "CiliumBGPNodeConfig", "CiliumBGPNodeConfigOverride", "CiliumBGPPeeringPolicy"
ROUTER_NOTE = "cilium.io/bgp-virtual-router."
"""Annotation of a Node, and an AS: ``router-id=10.0.0.1,local-port=179``, for the older policies."""
SOURCE = "k8s"
"""Of labels, as selectors see them."""
FAMILIES = {"ipv4": 4, "ipv6": 6}
Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the node's kernel says."""

    gateways: Mapping[int, str] = field(default_factory=dict)
    """By IP version: the default gateway."""
    interfaces: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Addresses by device, without those of the link alone."""


@dataclass(frozen=True, slots=True)
class World:
    """Everything that decides."""

    node: str
    nodes: Mapping[str, Resource] = field(default_factory=dict)
    configs: Sequence[Resource] = ()
    peer_configs: Mapping[str, Resource] = field(default_factory=dict)
    advertisements: Sequence[Resource] = ()
    overrides: Mapping[str, Resource] = field(default_factory=dict)
    legacy: Sequence[Resource] = ()
    secrets: Mapping[str, Resource] = field(default_factory=dict)
    """Of the namespace of passwords, by name."""
    services: Sequence[Resource] = ()
    slices: Mapping[tuple[str, str], Sequence[Resource]] = field(default_factory=dict)
    """By (namespace, name) of the Service."""
    pod_cidrs: tuple[str, ...] = ()
    statuses: Sequence[NodeStatus] = ()
    facts: Facts = field(default_factory=Facts)
    drain: Drain = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The node's own."""
        return next((each.addresses for each in self.statuses if each.node == self.node), ())


class Offer(NamedTuple):
    """A peer as objects describe it, before anything is looked up."""

    name: str
    asn: int
    address: str
    discovery: str
    """Family (``ipv4``) whose default gateway it is; empty: it has an *address*."""
    config: Manifest | None
    """``spec`` of its PeerConfig; None: there is none of that name."""
    config_name: str
    adverts: Mapping[int, Sequence[Manifest]]
    """By IP version of the session's families: what is announced on it."""
    local_address: str = ""
    local_port: int = 0


class Instance(NamedTuple):
    """A virtual router of the node."""

    name: str
    asn: int
    port: int
    router_id: str
    peers: tuple[Offer, ...]


def wants(selector: Manifest | None) -> list[Requirement]:
    """What a Kubernetes selector asks of labels; one that is empty asks nothing."""
    return requirements(selector or {}, "", Findings(), source=SOURCE)


def label_set(labels: Mapping[str, str]) -> LabelSet:
    """*labels* as selectors see them."""
    return LabelSet(f"{SOURCE}:{key}={value}" for key, value in labels.items())


def matches(selector: Manifest | None, labels: Mapping[str, str]) -> bool:
    """Whether a Kubernetes selector takes *labels*."""
    known = label_set(labels)
    return all(each.holds(known) for each in wants(selector))


def labels_of(resource: Resource) -> dict[str, str]:
    """Its labels."""
    return dict((resource.manifest.get("metadata") or {}).get("labels") or {})


def spec_of(resource: Resource) -> Manifest:
    """Its ``spec``."""
    found: Manifest = resource.manifest.get("spec") or {}
    return found


def seniority(resource: Resource) -> tuple[str, str]:
    """Of two objects that want the same the smaller one has it."""
    return str((resource.manifest.get("metadata") or {}).get("creationTimestamp") or ""), resource.name


def selected(config: Resource, nodes: Mapping[str, Resource]) -> list[str]:
    """Names of the nodes that a ClusterConfig or a PeeringPolicy is about."""
    selector = spec_of(config).get("nodeSelector")
    return sorted(name for name, node in nodes.items() if matches(selector, labels_of(node)))


def chosen(world: World) -> Resource | None:
    """The object that holds for this node: the oldest ClusterConfig, else the oldest PeeringPolicy."""
    for configs in (world.configs, world.legacy):
        mine = [each for each in configs if world.node in selected(each, world.nodes)]
        if mine:
            return min(mine, key=seniority)
    return None


def instances(world: World, config: Resource) -> tuple[Instance, ...]:
    """The virtual routers that *config* gives this node."""
    if config.kind == LEGACY:
        return tuple(_router(world, each) for each in spec_of(config)["virtualRouters"])
    override = world.overrides.get(world.node)
    changes = {one["name"]: one for one in spec_of(override)["bgpInstances"]} if override else {}
    return tuple(
        _instance(world, each, changes.get(each["name"], {})) for each in spec_of(config)["bgpInstances"]
    )


def _instance(world: World, instance: Manifest, change: Manifest) -> Instance:
    own = {one["name"]: one for one in change.get("peers") or ()}
    return Instance(
        instance["name"],
        int(change.get("localASN") or instance["localASN"]),
        int(change.get("localPort") or instance.get("localPort") or 0),
        str(change.get("routerID") or router_id(world)),
        tuple(_offer(world, each, own.get(each["name"], {})) for each in instance.get("peers") or ()),
    )


def _offer(world: World, peer: Manifest, change: Manifest) -> Offer:
    name = (peer.get("peerConfigRef") or {}).get("name", "")
    known = world.peer_configs.get(name)
    config = spec_of(known) if known else (None if name else {})
    families = (config or {}).get("families") or [{"afi": "ipv4"}, {"afi": "ipv6"}]
    return Offer(
        peer["name"],
        int(peer["peerASN"]),
        str(ip_address(peer["peerAddress"])) if peer.get("peerAddress") else "",
        ((peer.get("autoDiscovery") or {}).get("defaultGateway") or {}).get("addressFamily", ""),
        config,
        name,
        {FAMILIES[one["afi"]]: _adverts(world, one.get("advertisements")) for one in families},
        str(change.get("localAddress") or ""),
        int(change.get("localPort") or 0),
    )


def _adverts(world: World, selector: Manifest | None) -> list[Manifest]:
    """What the Advertisements that *selector* takes say; nothing without one."""
    if selector is None:
        return []
    found = sorted((a for a in world.advertisements if matches(selector, labels_of(a))), key=lambda a: a.name)
    return [one for each in found for one in spec_of(each)["advertisements"]]


def _router(world: World, router: Manifest) -> Instance:
    """A virtual router of the older API."""
    node = world.nodes.get(world.node)
    notes = ((node.manifest.get("metadata") or {}).get("annotations") or {}) if node else {}
    said = str(notes.get(f"{ROUTER_NOTE}{router['localASN']}") or "")
    options = dict(part.strip().split("=", 1) for part in said.split(",") if "=" in part)
    port = options.get("local-port", "")
    return Instance(
        str(router["localASN"]),
        int(router["localASN"]),
        int(port) if port.isdecimal() else 0,
        options.get("router-id") or router_id(world),
        tuple(_neighbor(router, each) for each in router["neighbors"]),
    )


def _neighbor(router: Manifest, neighbor: Manifest) -> Offer:
    address = str(ip_interface(neighbor["peerAddress"]).ip)
    timers = ("connectRetryTimeSeconds", "holdTimeSeconds", "keepAliveTimeSeconds")
    config = {
        "timers": {name: neighbor[name] for name in timers if name in neighbor},
        "transport": {"peerPort": neighbor.get("peerPort", 179)},
        **{name: neighbor[name] for name in ("authSecretRef", "gracefulRestart") if name in neighbor},
        "ebgpMultihop": neighbor.get("eBGPMultihopTTL", 1),
    }
    families = neighbor.get("families") or [{"afi": "ipv4"}, {"afi": "ipv6"}]
    adverts = list(_older(router, neighbor))
    return Offer(
        f"{neighbor['peerASN']}-{address.replace(':', '-')}",
        int(neighbor["peerASN"]),
        address,
        "",
        config,
        "",
        {FAMILIES[one["afi"]]: adverts for one in families},
    )


def _older(router: Manifest, neighbor: Manifest) -> Iterator[Manifest]:
    """What a virtual router announces, as entries of an Advertisement."""
    said = {one["selectorType"]: one for one in neighbor.get("advertisedPathAttributes") or ()}
    pods, balancers = said.get("PodCIDR", {}), said.get("CiliumLoadBalancerIPPool", {})
    if router.get("exportPodCIDR"):
        yield {"advertisementType": "PodCIDR", "attributes": pods}
    if "serviceSelector" in router:
        for kind in router.get("serviceAdvertisements") or ["LoadBalancerIP"]:
            yield {
                "advertisementType": "Service",
                "selector": router["serviceSelector"],
                "service": {"addresses": [kind]},
                "attributes": balancers if kind == "LoadBalancerIP" and not balancers.get("selector") else {},
            }


def router_id(world: World) -> str:
    """The node's IPv4 address; where it has none, a number made of its name."""
    for address in world.addresses:
        if version_of(address) == 4:
            return address
    number = int.from_bytes(hashlib.sha256(world.node.encode()).digest()[:4])
    return str(ip_address((number or 1) % 2**32))
