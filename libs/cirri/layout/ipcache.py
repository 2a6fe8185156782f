"""Mirror of ``bpf/lib/ipcache.h``: which identity owns an address prefix, and on which node it lives."""

from enum import IntEnum
from typing import ClassVar, Self

from cirri.layout.address import Network, network_of, prefix16
from cirri.layout.mirror import NO_ADDRESS, U32, Address16, Mirror
from cirri.layout.scalar import U32_NUMBER
from cirri.layout.spec import NO_PREALLOC, MapSpec, MapType

HEADER = "lib/ipcache.h"


class ReservedIdentity(IntEnum):
    """``enum reserved_identity``: those that programs know; all of them are in :mod:`cirri.labels`."""

    HOST = 1
    WORLD = 2
    REMOTE_NODE = 6
    KUBE_APISERVER = 7
    WORLD_IPV4 = 9
    WORLD_IPV6 = 10


class IpcacheKey(Mirror, frozen=True, kw_only=True):
    """An address prefix."""

    c_name: ClassVar[str] = "ipcache_key"
    header: ClassVar[str] = HEADER

    prefix_len: U32
    """Bits of *address*; an IPv4 prefix counts 96 more."""
    address: Address16

    @classmethod
    def of(cls, network: Network) -> Self:
        """The key under which *network* is stored, host prefixes included."""
        bits, address = prefix16(network)
        return cls(prefix_len=bits, address=address)

    @property
    def network(self) -> Network:
        """The prefix in its own family."""
        return network_of(self.prefix_len, self.address)


class IpcacheValue(Mirror, frozen=True, kw_only=True):
    """Who owns it."""

    c_name: ClassVar[str] = "ipcache_value"
    header: ClassVar[str] = HEADER

    identity: U32
    pad: U32 = 0
    node: Address16 = NO_ADDRESS
    """Next hop, of the same family; zero: not behind another node."""


IPCACHE = MapSpec(
    "cirri_ipcache", HEADER, MapType.LPM_TRIE, IpcacheKey, IpcacheValue, 1048576, flags=NO_PREALLOC
)


class Hop(Mirror, frozen=True, kw_only=True):
    """A next hop that programs found lately; theirs alone."""

    c_name: ClassVar[str] = "hop"
    header: ClassVar[str] = HEADER

    address: Address16 = NO_ADDRESS
    node: Address16 = NO_ADDRESS
    epoch: U32 = 0
    pad: U32 = 0


HOPS = MapSpec("cirri_hops", HEADER, MapType.PERCPU_ARRAY, U32_NUMBER, Hop, 1024)
