"""Mirror of ``bpf/lib/runtime.h``: what the datapath service may change while programs run."""

from enum import IntFlag
from typing import ClassVar

from cirri.layout.mirror import U8, U32, Address16, Be16, Mirror
from cirri.layout.scalar import U32_NUMBER
from cirri.layout.spec import MapSpec, MapType

HEADER = "lib/runtime.h"


class RuntimeFlag(IntFlag):
    """``enum runtime_flag``."""

    HOST_FIREWALL = 1
    """The node is an endpoint: its own traffic is judged too."""
    MASQUERADE4 = 2
    """What pods send out of the cluster leaves under :attr:`RuntimeConfig.nat4`."""
    MASQUERADE6 = 4
    POD_SERVICES = 8
    """Packets of pods are for Services as well: not every socket of a pod looks for them."""
    NODE_SOCKETS = 16
    """Only sockets of the node's own network namespace are translated."""
    NODE_SERVES = 32
    """Processes of the node serve clients outside through frontends."""
    PROXIES = 64
    """There are entries that redirect, or connections that were redirected: without it none is looked for.
    To be set before the first such entry is switched to, and kept until the last such connection has ended.
    """
    TRACE_EACH = 128
    """Observers are told of each packet."""
    TRACE_FROM = 256
    """And of where it came from."""
    OWN_FRAMES = 512
    """Frames to other machines' MAC addresses, which the segment floods, are not served."""


class RuntimeConfig(Mirror, frozen=True, kw_only=True):
    """``struct runtime``, at index 0."""

    c_name: ClassVar[str] = "runtime"
    header: ClassVar[str] = HEADER

    epoch: U32 = 0
    """Raised after any change of policy, endpoint or ipcache identity."""
    uplink_ifindex: U32 = 0
    flags: U32 = 0
    """:class:`RuntimeFlag`."""
    tunnel_ifindex: U32 = 0
    """The device that packets to other nodes' pods take; 0: they take the uplink, as they are."""
    lb_epoch: U32 = 0
    """Raised after a backend left a frontend or takes no more connections."""
    tunnel_port: Be16 = 0
    """UDP, while there is a tunnel."""
    trace_flags: U8 = 0
    """TCP flags that observers are told of at once."""
    pad: U8 = 0
    nat4: Address16 = bytes(16)
    """Of the node: what is sent in its name; zero: it has none of this family."""
    nat6: Address16 = bytes(16)
    trace_interval: U32 = 0
    """How often observers are told of a connection in each direction, in ticks as in
    :attr:`CtValue.forward_told`; 0: of its first packet."""
    pad2: U32 = 0


RUNTIME = MapSpec("cirri_runtime", HEADER, MapType.ARRAY, U32_NUMBER, RuntimeConfig, 1)
