"""The routes that advertisements name, on one node.  Pure.

Source: names and meaning as in Cilium's CiliumBGPAdvertisement; RFC 1997, 8092 (communities).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network

from cirri.bgp.objects import Manifest, World, label_set, labels_of, spec_of, wants
from cirri.bgp.speaker import Attributes
from cirri.engine.select import LabelSet
from cirri.loadbalancer.announced import BGP_CLASS, Announced, announced
from cirri.loadbalancer.endpoints import version_of
from cirri.loadbalancer.frontends import Here
from cirri.model import Resource

KINDS: dict[str, Announced] = {
    "LoadBalancerIP": "LoadBalancer",
    "ExternalIP": "ExternalIPs",
    "ClusterIP": "ClusterIP",
}
"""Kinds of addresses of a Service, by the names that advertisements have for them."""
MAGIC = ("io.kubernetes.service.namespace", "io.kubernetes.service.name")
"""Labels that every Service has, for selectors."""
WELL_KNOWN = {
    "internet": "0:0",
    "planned-shut": "65535:0",
    "accept-own": "65535:1",
    "route-filter-translated-v4": "65535:2",
    "route-filter-v4": "65535:3",
    "route-filter-translated-v6": "65535:4",
    "route-filter-v6": "65535:5",
    "llgr-stale": "65535:6",
    "no-llgr": "65535:7",
    "blackhole": "65535:666",
    "no-export": "65535:65281",
    "no-advertise": "65535:65282",
    "no-export-subconfed": "65535:65283",
    "no-peer": "65535:65284",
}


class Routes:
    """What each entry of an advertisement comes to; it is looked at once, however many peers have it."""

    def __init__(self, world: World) -> None:
        self._world = world
        here = Here.of(world.node, world.nodes.get(world.node), world.statuses)
        self._services = [
            (
                each,
                _labels(each),
                announced(each, world.slices.get((each.namespace, each.name), ()), here, BGP_CLASS),
            )
            for each in world.services
        ]
        self._found: dict[tuple[int, int], list[str]] = {}

    def of(self, adverts: Sequence[Manifest], version: int, *, internal: bool) -> dict[str, Attributes]:
        """Prefixes of IP *version* that *adverts* name, and what a peer is told of each."""
        found: dict[str, Attributes] = {}
        for each in adverts:
            told = attributes(each.get("attributes") or {}, internal=internal)
            for prefix in self._prefixes(each, version):
                found[prefix] = found[prefix] | told if prefix in found else told
        return found

    def _prefixes(self, advert: Manifest, version: int) -> list[str]:
        asked = (id(advert), version)
        if asked not in self._found:
            kind = advert["advertisementType"]
            if kind == "PodCIDR":
                prefixes = [p for p in self._world.pod_cidrs if version_of(p) == version]
            elif kind == "Service":
                prefixes = list(self._of_services(advert, version))
            elif kind == "Interface":
                own = self._world.facts.interfaces.get(advert["interface"]["name"], ())
                prefixes = [whole(a) for a in own if version_of(a) == version]
            else:
                prefixes = []
            self._found[asked] = prefixes
        return self._found[asked]

    def _of_services(self, advert: Manifest, version: int) -> Iterator[str]:
        if advert.get("selector") is None:
            return
        said = advert["service"]
        kinds = {KINDS[each] for each in said["addresses"]}
        length = said.get(f"aggregationLengthIPv{version}")
        asked = wants(advert["selector"])
        for service, labels, addresses in self._services:
            if not addresses or not all(each.holds(labels) for each in asked):
                continue
            for address, kind in addresses.items():
                if kind not in kinds or version_of(address) != version:
                    continue
                policy = "internalTrafficPolicy" if kind == "ClusterIP" else "externalTrafficPolicy"
                # A wider prefix would draw traffic for others that this node has nothing for.
                local = spec_of(service).get(policy) == "Local"
                yield whole(address) if local or not length else wider(address, int(length))


def attributes(said: Manifest, *, internal: bool) -> Attributes:
    """What an entry adds to its routes."""
    communities = said.get("communities") or {}
    standard = [_pair(each) for each in communities.get("standard") or ()]
    known = [WELL_KNOWN[each] for each in communities.get("wellKnown") or ()]
    large = {":".join(str(int(part)) for part in each.split(":")) for each in communities.get("large") or ()}
    preference = said.get("localPreference")
    return Attributes(
        tuple(sorted({*standard, *known})),
        tuple(sorted(large)),
        int(preference) if internal and preference is not None else None,
    )


def whole(address: str) -> str:
    """*address* as a prefix of one."""
    return f"{address}/{32 if version_of(address) == 4 else 128}"


def wider(address: str, length: int) -> str:
    """The prefix of *length* that *address* is in."""
    return str(ip_network((ip_address(address), length), strict=False))


def _pair(community: str) -> str:
    if ":" not in community:
        return f"{int(community) >> 16}:{int(community) & 0xFFFF}"
    return ":".join(str(int(part)) for part in community.split(":"))


def _labels(service: Resource) -> LabelSet:
    return label_set({**labels_of(service), MAGIC[0]: service.namespace, MAGIC[1]: service.name})
