"""Mirror of ``bpf/lib/endpoint.h``: the pods of a node, by address."""

from enum import IntFlag
from typing import Annotated, ClassVar, Self

from cirri.layout.mirror import NO_ADDRESS, U16, U32, Address16, CType, Mac, Mirror
from cirri.layout.scalar import ADDRESS, U32_NUMBER
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


class EndpointSlot(Mirror, frozen=True, kw_only=True):
    """A copy of an endpoint where programs find it without hashing; empty while its address is zero."""

    c_name: ClassVar[str] = "endpoint_slot"
    header: ClassVar[str] = HEADER

    address: Address16 = NO_ADDRESS
    endpoint: Annotated[bytes, CType("28s")] = bytes(28)
    """:class:`EndpointValue`, packed."""
    pad: U32 = 0

    @classmethod
    def of(cls, address: bytes, value: EndpointValue) -> Self:
        """The slot's content for the endpoint under *address*."""
        return cls(address=address, endpoint=value.pack())


ENDPOINT_SLOT_COUNT = 4096
ENDPOINT_SLOTS = MapSpec(
    "cirri_endpoint_slots", HEADER, MapType.ARRAY, U32_NUMBER, EndpointSlot, ENDPOINT_SLOT_COUNT
)


def endpoint_slot(address: bytes) -> int:
    """Index of the slot that *address* (16 bytes) leads to, as ``endpoint_slot_of`` in C."""
    low = int.from_bytes(address[12:], "big") & (ENDPOINT_SLOT_COUNT // 2 - 1)
    return low if address[8:12] == b"\0\0\xff\xff" else low + ENDPOINT_SLOT_COUNT // 2
