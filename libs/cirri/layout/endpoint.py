"""Mirror of ``bpf/lib/endpoint.h``: the pods of a node, by address."""

from enum import IntFlag
from typing import ClassVar

from cirri.layout.mirror import U16, U32, Mac, Mirror
from cirri.layout.scalar import ADDRESS
from cirri.layout.spec import MapSpec, MapType

HEADER = "lib/endpoint.h"


class EndpointFlag(IntFlag):
    """``enum endpoint_flag``."""

    ENFORCE_INGRESS = 1
    ENFORCE_EGRESS = 2


class EndpointValue(Mirror, frozen=True, kw_only=True):
    """An endpoint, under each of its addresses."""

    c_name: ClassVar[str] = "endpoint"
    header: ClassVar[str] = HEADER

    ifindex: U32
    """Of the device on the node's side."""
    identity: U32 = 0
    policy_id: U32 = 0
    id: U16 = 0
    flags: U16 = 0
    """:class:`EndpointFlag`."""
    mac: Mac = bytes(6)
    """Of the pod's eth0."""
    node_mac: Mac = bytes(6)
    """Of the device on the node's side."""


ENDPOINTS = MapSpec("cirri_endpoints", HEADER, MapType.HASH, ADDRESS, EndpointValue, 65536)
