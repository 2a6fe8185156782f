"""Service and EndpointSlice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any

from cirri.manifests.schema import BOOLEAN, TEXT, Fault, Fields, Integer, Items, Text, unread
from cirri.manifests.schemas.meta import STATUS, metadata
from cirri.manifests.words import (
    ADDRESS,
    LABEL_NAME,
    LABELS,
    PORT,
    PORT_OR_NAME,
    PREFIX,
    PROTOCOL,
    SERVICE_NAME,
    SUBDOMAIN_NAME,
    address_complaint,
)

_FAMILY = Text(choices=("IPv4", "IPv6"))


def _cluster_ip(text: str) -> str:
    return "" if text in ("None", "") else address_complaint(text) and f'{address_complaint(text)}, or "None"'


CLUSTER_IP = Text(test=_cluster_ip)

_PORT = Fields(
    {
        "name": LABEL_NAME,
        "protocol": PROTOCOL,
        "port": PORT,
        "targetPort": PORT_OR_NAME,
        "nodePort": Integer(0, 65535),
        "appProtocol": TEXT,
    },
    required=("port",),
    defaults={"protocol": "TCP"},
)


def _ports(spec: Mapping[str, Any]) -> Iterator[Fault]:
    ports = spec.get("ports", [])
    headless = spec.get("clusterIP") == "None"
    if not ports and not headless and spec.get("type") != "ExternalName":
        yield ("ports",), "required, but missing (only headless and ExternalName Services have none)"
    seen: dict[tuple[int, str], int] = {}
    names: dict[str, int] = {}
    for i, port in enumerate(ports):
        if (name := port.get("name")) in names:
            yield ("ports", i, "name"), f'"{name}" is already the name of port {names[name]}'
        elif name:
            names[name] = i
        if len(ports) > 1 and "name" not in port:
            yield ("ports", i, "name"), "required, but missing: a Service with several ports names each"
        where = (port["port"], port["protocol"])
        if where in seen:
            yield ("ports", i), f"{where[0]}/{where[1]} is already port {seen[where]} of this Service"
        seen.setdefault(where, i)


def _addresses(spec: Mapping[str, Any]) -> Iterator[Fault]:
    several = spec.get("clusterIPs", [])
    if "clusterIP" in spec and several and several[0] != spec["clusterIP"]:
        yield ("clusterIPs", 0), f'must equal clusterIP ("{spec["clusterIP"]}")'
    if len(several) > 1 and "None" in several:
        yield ("clusterIPs",), '"None" stands alone: a headless Service has no address of any family'
    elif len(several) == 2 and ip_address(several[0]).version == ip_address(several[1]).version:
        yield ("clusterIPs", 1), f"both are IPv{ip_address(several[0]).version}; allowed: one of each family"
    if spec.get("type") == "ExternalName":
        if "externalName" not in spec:
            yield ("externalName",), "required, but missing: type is ExternalName"
        if spec.get("clusterIP") or several:
            yield ("clusterIP",), "an ExternalName Service has no address"
    if spec.get("clusterIP") == "None" and spec.get("type", "ClusterIP") != "ClusterIP":
        yield ("clusterIP",), f'"None" (headless) is allowed with type ClusterIP only, not {spec["type"]}'


def _outside(spec: Mapping[str, Any]) -> Iterator[Fault]:
    """What only Services have that clients outside can reach."""
    addresses = spec.get("externalIPs", [])
    for i, text in enumerate(addresses):
        if _only_near(text):
            yield ("externalIPs", i), f'"{text}" is not an address that clients outside can send to'
        elif text in addresses[:i]:
            yield ("externalIPs", i), f'"{text}" is already item {addresses.index(text)}'
    inside = spec.get("type", "ClusterIP") in ("ClusterIP", "ExternalName") and not addresses
    if inside and "externalTrafficPolicy" in spec:
        says = "needs a Service for clients outside: type NodePort or LoadBalancer, or externalIPs"
        yield ("externalTrafficPolicy",), says


def _affinity(spec: Mapping[str, Any]) -> Iterator[Fault]:
    if "sessionAffinityConfig" in spec and spec.get("sessionAffinity") != "ClientIP":
        yield ("sessionAffinityConfig",), "needs sessionAffinity: ClientIP"


def _only_near(text: str) -> bool:
    """Whether an address means something on one host or one link alone."""
    ip = ip_address(text)
    return ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified


def _annotations(service: Mapping[str, Any]) -> Iterator[Fault]:
    if annotations := service["metadata"].get("annotations"):
        from cirri.loadbalancer import annotation_faults  # what only lists kinds need not load it

        yield from ((("metadata", "annotations", key), says) for key, says in annotation_faults(annotations))


_AFFINITY = Fields({"clientIP": Fields({"timeoutSeconds": Integer(1, 86400)})})

SERVICE = Fields(
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": metadata("Service", namespaced=True, name=SERVICE_NAME),
        "spec": Fields(
            {
                "type": Text(choices=("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")),
                "selector": LABELS,
                "ports": Items(_PORT),
                "clusterIP": CLUSTER_IP,
                "clusterIPs": Items(CLUSTER_IP, high=2),
                "ipFamilies": Items(_FAMILY, high=2),
                "ipFamilyPolicy": Text(choices=("SingleStack", "PreferDualStack", "RequireDualStack")),
                "externalName": SUBDOMAIN_NAME,
                "externalIPs": Items(ADDRESS),
                "loadBalancerIP": ADDRESS,
                "loadBalancerClass": TEXT,
                "loadBalancerSourceRanges": Items(PREFIX),
                "sessionAffinity": Text(choices=("None", "ClientIP")),
                "internalTrafficPolicy": Text(choices=("Cluster", "Local")),
                "externalTrafficPolicy": Text(choices=("Cluster", "Local")),
                "healthCheckNodePort": Integer(0, 65535),
                "publishNotReadyAddresses": BOOLEAN,
                "allocateLoadBalancerNodePorts": BOOLEAN,
                "sessionAffinityConfig": _AFFINITY,
                **unread("trafficDistribution"),
            },
            defaults={"type": "ClusterIP", "sessionAffinity": "None"},
            rules=(_ports, _addresses, _outside, _affinity),
        ),
        "status": STATUS,
    },
    required=("metadata", "spec"),
    rules=(_annotations,),
)

_CONDITIONS = Fields({"ready": BOOLEAN, "serving": BOOLEAN, "terminating": BOOLEAN})

_ENDPOINT = Fields(
    {
        "addresses": Items(TEXT, low=1, high=100),
        "conditions": _CONDITIONS,
        "hostname": LABEL_NAME,
        "nodeName": SUBDOMAIN_NAME,
        "zone": TEXT,
        **unread("targetRef hints deprecatedTopology"),
    },
    required=("addresses",),
)

_SLICE_PORT = Fields(
    {"name": Text(high=63), "protocol": PROTOCOL, "port": PORT, "appProtocol": TEXT},
    defaults={"protocol": "TCP"},
)


def _family(slice_: Mapping[str, Any]) -> Iterator[Fault]:
    """Addresses are of the slice's type, and somewhere a pod or server can be."""
    wanted = slice_["addressType"]
    if wanted == "FQDN":
        return
    for i, endpoint in enumerate(slice_.get("endpoints", [])):
        for j, text in enumerate(endpoint["addresses"]):
            where = ("endpoints", i, "addresses", j)
            if complaint := address_complaint(text):
                yield where, complaint
                continue
            if f"IPv{ip_address(text).version}" != wanted:
                yield where, f'"{text}" is not of addressType {wanted}'
            elif _only_near(text):
                yield where, f'"{text}" is not an address that traffic can be sent to from another host'


ENDPOINT_SLICE = Fields(
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": metadata("EndpointSlice", namespaced=True),
        "addressType": Text(choices=("IPv4", "IPv6", "FQDN")),
        "endpoints": Items(_ENDPOINT, high=1000),
        "ports": Items(_SLICE_PORT, high=100),
    },
    required=("metadata", "addressType"),
    rules=(_family,),
)
