"""The BGP family: which nodes speak to which routers, how, and what they announce."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

from cirri.manifests.schema import BOOLEAN, TEXT, Fault, Fields, Integer, Items, Text
from cirri.manifests.schemas.meta import SELECTOR, STATUS, metadata
from cirri.manifests.words import ADDRESS, PORT, PREFIX, SUBDOMAIN_NAME

MAX_ASN = 2**32 - 1
ASN = Integer(1, MAX_ASN)
"""AS 0 may not be used (RFC 7607)."""
WELL_KNOWN = (
    "internet",
    "planned-shut",
    "accept-own",
    "route-filter-translated-v4",
    "route-filter-v4",
    "route-filter-translated-v6",
    "route-filter-v6",
    "llgr-stale",
    "no-llgr",
    "blackhole",
    "no-export",
    "no-advertise",
    "no-export-subconfed",
    "no-peer",
)
_NO_BFD = (
    "the BGP speaker of Cirri (GoBGP 3.10) has no BFD; remove the field and lower timers.holdTimeSeconds"
    " (the least is 3)"
)
_BFD = {"bfd": _NO_BFD, "bfdProfile": _NO_BFD, "bfdProfileRef": _NO_BFD}


def _router_id(text: str) -> str:
    try:
        good = int(IPv4Address(text)) > 0
    except ValueError:
        good = False
    return "" if good else f'"{text}" is not a router ID: an IPv4 address other than 0.0.0.0'


def _community(text: str) -> str:
    parts = text.split(":")
    number = re.compile(r"[0-9]{1,10}")
    if all(map(number.fullmatch, parts)):
        if len(parts) == 1 and int(text) <= MAX_ASN:
            return ""
        if len(parts) == 2 and max(map(int, parts)) <= 65535:
            return ""
    return f'"{text}" is not a community; allowed: two numbers up to 65535 as in 65000:1, or one of 32 bits'


def _large(text: str) -> str:
    parts = text.split(":")
    if len(parts) == 3 and all(re.fullmatch(r"[0-9]{1,10}", p) and int(p) <= MAX_ASN for p in parts):
        return ""
    return f'"{text}" is not a large community; allowed: three numbers of 32 bits such as 65000:1:2'


def _keepalive(timers: Mapping[str, Any]) -> Iterator[Fault]:
    hold, keep = timers.get("holdTimeSeconds", 90), timers.get("keepAliveTimeSeconds", 30)
    if keep > hold:
        which = "keepAliveTimeSeconds" if "keepAliveTimeSeconds" in timers else "holdTimeSeconds"
        yield (
            (which,),
            f"a session kept alive every {keep} s ends within {hold} s; allowed: at most that",
        )


def _one_address(peer: Mapping[str, Any]) -> Iterator[Fault]:
    if "peerAddress" in peer and "autoDiscovery" in peer:
        yield ("autoDiscovery",), "stands beside peerAddress; allowed: one of them"
    if "peerAddress" not in peer and "autoDiscovery" not in peer:
        yield ("peerAddress",), "required, but missing (or autoDiscovery)"
    if "peerAddress" in peer:
        ip = ip_address(peer["peerAddress"])
        if ip.is_unspecified or ip.is_multicast:
            yield ("peerAddress",), f'"{ip}" is not the address of a router'


def _gateway(discovery: Mapping[str, Any]) -> Iterator[Fault]:
    if discovery["mode"] == "DefaultGateway" and "defaultGateway" not in discovery:
        yield ("defaultGateway",), "required, but missing: mode is DefaultGateway"


def _unlike(items: list[Mapping[str, Any]], field: str, whose: str) -> Iterator[tuple[int, str]]:
    """Items whose *field* an earlier one has."""
    seen: dict[Any, int] = {}
    for i, item in enumerate(items):
        if (value := item.get(field)) is None:
            continue
        if value in seen:
            yield i, f"{value} is already that of {whose} {seen[value]}"
        seen.setdefault(value, i)


def _peers(instance: Mapping[str, Any]) -> Iterator[Fault]:
    for i, says in _unlike(instance.get("peers", []), "peerAddress", "peer"):
        yield ("peers", i, "peerAddress"), says


def _instances(spec: Mapping[str, Any]) -> Iterator[Fault]:
    for field in ("localASN", "localPort"):
        for i, says in _unlike(spec["bgpInstances"], field, "instance"):
            yield ("bgpInstances", i, field), says
    seen: dict[str, int] = {}
    for i, instance in enumerate(spec["bgpInstances"]):
        for j, peer in enumerate(instance.get("peers", [])):
            address = peer.get("peerAddress")
            if address is not None and seen.setdefault(address, i) != i:
                says = f'"{address}" is already a peer of instance {seen[address]}'
                yield ("bgpInstances", i, "peers", j, "peerAddress"), says


def _object(kind: str, spec: Fields) -> Fields:
    return Fields(
        {
            "apiVersion": TEXT,
            "kind": TEXT,
            "metadata": metadata(kind, namespaced=False),
            "spec": spec,
            "status": STATUS,
        },
        required=("metadata", "spec"),
    )


_CONFIG_REF = Fields({"group": TEXT, "kind": TEXT, "name": SUBDOMAIN_NAME}, required=("name",))
_DISCOVERY = Fields(
    {
        "mode": Text(choices=("DefaultGateway",)),
        "defaultGateway": Fields(
            {"addressFamily": Text(choices=("ipv4", "ipv6"))}, required=("addressFamily",)
        ),
    },
    required=("mode",),
    rules=(_gateway,),
)
_PEER = Fields(
    {
        "name": SUBDOMAIN_NAME,
        "peerAddress": ADDRESS,
        "peerASN": ASN,
        "autoDiscovery": _DISCOVERY,
        "peerConfigRef": _CONFIG_REF,
    },
    required=("name", "peerASN"),
    rules=(_one_address,),
    absent=_BFD,
)
_INSTANCE = Fields(
    {"name": SUBDOMAIN_NAME, "localASN": ASN, "localPort": PORT, "peers": Items(_PEER, key="name")},
    required=("name", "localASN"),
    rules=(_peers,),
)
CILIUM_BGP_CLUSTER_CONFIG = _object(
    "CiliumBGPClusterConfig",
    Fields(
        {"nodeSelector": SELECTOR, "bgpInstances": Items(_INSTANCE, low=1, high=16, key="name")},
        required=("bgpInstances",),
        rules=(_instances,),
    ),
)

_TIMERS = Fields(
    {
        "connectRetryTimeSeconds": Integer(1, 2**31 - 1),
        "holdTimeSeconds": Integer(3, 65535),
        "keepAliveTimeSeconds": Integer(1, 65535),
    },
    rules=(_keepalive,),
)
_RESTART = Fields({"enabled": BOOLEAN, "restartTimeSeconds": Integer(1, 4095)}, required=("enabled",))
_AFI, _SAFI = Text(choices=("ipv4", "ipv6")), Text(choices=("unicast",))


def _families(spec: Mapping[str, Any]) -> Iterator[Fault]:
    for i, says in _unlike(spec.get("families", []), "afi", "family"):
        yield ("families", i, "afi"), says


CILIUM_BGP_PEER_CONFIG = _object(
    "CiliumBGPPeerConfig",
    Fields(
        {
            "transport": Fields(
                {"peerPort": PORT, "localPort": PORT, "sourceInterface": Text(low=1, high=15)}
            ),
            "timers": _TIMERS,
            "authSecretRef": SUBDOMAIN_NAME,
            "gracefulRestart": _RESTART,
            "ebgpMultihop": Integer(1, 255),
            "families": Items(
                Fields({"afi": _AFI, "safi": _SAFI, "advertisements": SELECTOR}, required=("afi", "safi"))
            ),
        },
        rules=(_families,),
        absent=_BFD,
    ),
)

_COMMUNITIES = Fields(
    {
        "standard": Items(Text(test=_community)),
        "wellKnown": Items(Text(choices=WELL_KNOWN)),
        "large": Items(Text(test=_large)),
    }
)
_ATTRIBUTES = Fields({"communities": _COMMUNITIES, "localPreference": Integer(0, MAX_ASN)})
_SERVICE_ADDRESSES = Text(choices=("LoadBalancerIP", "ClusterIP", "ExternalIP"))


def _of_type(one: Mapping[str, Any]) -> Iterator[Fault]:
    """What belongs to one type of advertisement stands with no other."""
    for type_, field in (("Service", "service"), ("Interface", "interface")):
        if one["advertisementType"] == type_ and field not in one:
            yield (field,), f"required, but missing: advertisementType is {type_}"
        elif one["advertisementType"] != type_ and field in one:
            yield (field,), f"belongs to advertisementType {type_}, and this is {one['advertisementType']}"


CILIUM_BGP_ADVERTISEMENT = _object(
    "CiliumBGPAdvertisement",
    Fields(
        {
            "advertisements": Items(
                Fields(
                    {
                        "advertisementType": Text(
                            choices=("PodCIDR", "CiliumPodIPPool", "Service", "Interface")
                        ),
                        "selector": SELECTOR,
                        "service": Fields(
                            {
                                "addresses": Items(_SERVICE_ADDRESSES, low=1),
                                "aggregationLengthIPv4": Integer(1, 31),
                                "aggregationLengthIPv6": Integer(1, 127),
                            },
                            required=("addresses",),
                        ),
                        "interface": Fields({"name": Text(low=1, high=15)}, required=("name",)),
                        "attributes": _ATTRIBUTES,
                    },
                    required=("advertisementType",),
                    rules=(_of_type,),
                ),
                low=1,
            )
        },
        required=("advertisements",),
    ),
)

_ROUTER_ID = Text(test=_router_id)
_NODE_PEER = Fields({**_PEER.fields, "localAddress": ADDRESS}, required=("name",), rules=(), absent=_BFD)
CILIUM_BGP_NODE_CONFIG = _object(
    "CiliumBGPNodeConfig",
    Fields(
        {
            "bgpInstances": Items(
                Fields(
                    {**_INSTANCE.fields, "routerID": _ROUTER_ID, "peers": Items(_NODE_PEER, key="name")},
                    required=("name", "localASN"),
                ),
                key="name",
            )
        },
        required=("bgpInstances",),
    ),
)
CILIUM_BGP_NODE_CONFIG_OVERRIDE = _object(
    "CiliumBGPNodeConfigOverride",
    Fields(
        {
            "bgpInstances": Items(
                Fields(
                    {
                        "name": SUBDOMAIN_NAME,
                        "routerID": _ROUTER_ID,
                        "localPort": PORT,
                        "localASN": ASN,
                        "peers": Items(
                            Fields(
                                {"name": SUBDOMAIN_NAME, "localAddress": ADDRESS, "localPort": PORT},
                                required=("name",),
                            ),
                            key="name",
                        ),
                    },
                    required=("name",),
                ),
                low=1,
                key="name",
            )
        },
        required=("bgpInstances",),
    ),
)


def _host(neighbor: Mapping[str, Any]) -> Iterator[Fault]:
    network = ip_network(neighbor["peerAddress"], strict=False)
    if network.num_addresses != 1:
        yield (
            ("peerAddress",),
            f'"{network}" is a range; allowed: one address, as 10.0.0.1/32',
        )


def _neighbor_timers(neighbor: Mapping[str, Any]) -> Iterator[Fault]:
    yield from _keepalive(neighbor)


_NEIGHBOR = Fields(
    {
        "peerAddress": PREFIX,
        "peerPort": PORT,
        "peerASN": ASN,
        "authSecretRef": SUBDOMAIN_NAME,
        "eBGPMultihopTTL": Integer(1, 255),
        **_TIMERS.fields,
        "gracefulRestart": _RESTART,
        "families": Items(Fields({"afi": _AFI, "safi": _SAFI}, required=("afi", "safi"))),
        "advertisedPathAttributes": Items(
            Fields(
                {
                    "selectorType": Text(choices=("PodCIDR", "CiliumLoadBalancerIPPool", "CiliumPodIPPool")),
                    "selector": SELECTOR,
                    "communities": _COMMUNITIES,
                    "localPreference": Integer(0, MAX_ASN),
                },
                required=("selectorType",),
            )
        ),
    },
    required=("peerAddress", "peerASN"),
    rules=(_host, _neighbor_timers, _families),
    absent=_BFD,
)


def _routers(spec: Mapping[str, Any]) -> Iterator[Fault]:
    for i, says in _unlike(spec["virtualRouters"], "localASN", "virtual router"):
        yield ("virtualRouters", i, "localASN"), says
    for i, router in enumerate(spec["virtualRouters"]):
        for j, says in _unlike(router["neighbors"], "peerAddress", "neighbor"):
            yield ("virtualRouters", i, "neighbors", j, "peerAddress"), says


CILIUM_BGP_PEERING_POLICY = _object(
    "CiliumBGPPeeringPolicy",
    Fields(
        {
            "nodeSelector": SELECTOR,
            "virtualRouters": Items(
                Fields(
                    {
                        "localASN": ASN,
                        "exportPodCIDR": BOOLEAN,
                        "serviceSelector": SELECTOR,
                        "serviceAdvertisements": Items(_SERVICE_ADDRESSES, low=1),
                        "podIPPoolSelector": SELECTOR,
                        "neighbors": Items(_NEIGHBOR, low=1),
                    },
                    required=("localASN", "neighbors"),
                ),
                low=1,
            ),
        },
        required=("virtualRouters",),
        rules=(_routers,),
    ),
)
