"""Mirror of ``bpf/lib/endpoint.h``: the pods of a node and the node itself, by address."""

from enum import IntFlag
from typing import Annotated, ClassVar

from cirri.layout.mirror import NO_ADDRESS, U16, U32, Address16, CType, Mac, Mirror
from cirri.layout.scalar import ADDRESS, U32_NUMBER
from cirri.layout.spec import MapSpec, MapType

HEADER = "lib/endpoint.h"


class EndpointFlag(IntFlag):
    """``enum endpoint_flag``."""

    ENFORCE_INGRESS = 1
    ENFORCE_EGRESS = 2
    AUDIT = 4
    HOST = 8
    AUDIT_INGRESS = 16
    AUDIT_EGRESS = 32
    NAMES = 64
    """Its egress policy speaks of names: ``cirri_names`` is asked about destinations outside."""


class EndpointValue(Mirror, frozen=True, kw_only=True):
    """An endpoint, under each of its addresses."""

    c_name: ClassVar[str] = "endpoint"
    header: ClassVar[str] = HEADER

    ifindex: U32
    """Of the device on the node's side."""
    identity: U32 = 0
    policy_id: U32 = 0
    audit_policy_id: U32 = 0
    """Set of entries that is tried out on it; 0: none."""
    id: U16 = 0
    flags: U16 = 0
    """:class:`EndpointFlag`."""
    mac: Mac = bytes(6)
    """Of the pod's eth0."""
    node_mac: Mac = bytes(6)
    """Of the device on the node's side."""


ENDPOINTS = MapSpec("cirri_endpoints", HEADER, MapType.HASH, ADDRESS, EndpointValue, 65536)


class EndpointMemo(Mirror, frozen=True, kw_only=True):
    """An endpoint that programs found lately; theirs alone."""

    c_name: ClassVar[str] = "endpoint_memo"
    header: ClassVar[str] = HEADER

    address: Address16 = NO_ADDRESS
    endpoint: Annotated[bytes, CType("32s")] = bytes(32)
    """:class:`EndpointValue`, packed; without a device: nobody has the address."""
    epoch: U32 = 0
    pad: U32 = 0


ENDPOINT_MEMOS = MapSpec("cirri_endpoint_memos", HEADER, MapType.PERCPU_ARRAY, U32_NUMBER, EndpointMemo, 2048)
