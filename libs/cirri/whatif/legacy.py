"""Endpoints objects, as the controllers of Kubernetes turn them into EndpointSlices.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from cirri.engine.context import SERVICE_NAME
from cirri.manifests.schema import TEXT, Fields, Items, Text, unread
from cirri.manifests.schemas.meta import metadata
from cirri.manifests.words import ADDRESS, PORT, PROTOCOL
from cirri.model import Resource

_ADDRESSES = Items(Fields({"ip": ADDRESS, **unread("hostname nodeName targetRef")}, required=("ip",)))
_PORT = Fields(
    {"name": Text(high=63), "port": PORT, "protocol": PROTOCOL, "appProtocol": TEXT},
    required=("port",),
    defaults={"protocol": "TCP"},
)
_SUBSET = Fields({"addresses": _ADDRESSES, "notReadyAddresses": _ADDRESSES, "ports": Items(_PORT)})
ENDPOINTS = Fields(
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": metadata("Endpoints", namespaced=True),
        "subsets": Items(_SUBSET),
    },
    required=("metadata",),
)
"""Schema of an Endpoints object."""


def mirrored(endpoints: Iterable[Resource], others: Iterable[Resource]) -> Iterator[Resource]:
    """EndpointSlices for those of *endpoints* whose Service, among *others*, selects no pods."""
    services = (one for one in others if one.kind == "Service")
    selecting = {(one.namespace, one.name) for one in services if one.manifest["spec"].get("selector")}
    for one in endpoints:
        if (one.namespace, one.name) not in selecting:
            yield from _slices(one)


def _slices(one: Resource) -> Iterator[Resource]:
    """One for each subset and family, as a slice has addresses of one."""
    for number, subset in enumerate(one.manifest.get("subsets", ())):
        for version in (4, 6):
            endpoints = [
                {"addresses": [address["ip"]], "conditions": {"ready": ready}}
                for ready, member in ((True, "addresses"), (False, "notReadyAddresses"))
                for address in subset.get(member, ())
                if ip_address(address["ip"]).version == version
            ]
            if endpoints:
                yield Resource(
                    kind="EndpointSlice",
                    namespace=one.namespace,
                    name=f"{one.name}-{number}-ipv{version}",
                    manifest={
                        "metadata": {"labels": {SERVICE_NAME: one.name}},
                        "addressType": f"IPv{version}",
                        "ports": subset.get("ports", []),
                        "endpoints": endpoints,
                    },
                    source=one.source,
                )
