"""The routing mode in force: packets to other nodes' pods take the tunnel's device, or the uplink as they
are."""

from __future__ import annotations

from collections.abc import Callable

from cirri.addresses import Routing
from cirri.datapath.attach import Node
from cirri.datapath.errors import Broken
from cirri.datapath.kernel import Switches
from cirri.netlink import Channel, NetlinkRefused

DEVICE = "cirri_vxlan"
FROM_OVERLAY, TO_OVERLAY = "tc/from_overlay", "tc/to_overlay"


class Overlay:
    """Keeps the mode as configured."""

    def __init__(self, switches: Switches, realize: Callable[[int], int]) -> None:
        """*realize* has the tunnel's device on a port, or removes it (0), and returns its index."""
        self.switches, self._realize = switches, realize
        self.mode: Routing | None = None
        """The mode in force; None: that of the process before, whatever its port."""
        self.fault = ""

    @property
    def index(self) -> int:
        """The tunnel's device; 0: the mode is native."""
        return self.switches.value.tunnel_ifindex

    @property
    def port(self) -> int:
        """UDP port of the tunnels; 0: there are none, or it is not known yet."""
        return self.mode.tunnel_port if self.mode else 0

    @property
    def feature(self) -> str:
        """As people see it."""
        if self.index:
            return f"Tunnel [vxlan, port {self.port}, {DEVICE}]" if self.port else f"Tunnel [vxlan, {DEVICE}]"
        return "Native"

    def step(self, wanted: Routing) -> bool:
        """Put *wanted* in force; True if that changed something.  On failure the mode before stays."""
        if wanted == self.mode:
            return False
        try:
            if not wanted.tunnel_port:
                self.switches.tunnel(0)  # before the device goes: packets sent there would vanish
            self.switches.tunnel(self._realize(wanted.tunnel_port), wanted.tunnel_port)
        except (NetlinkRefused, Broken) as error:
            self.fault = f"routing mode {'tunnel' if wanted.tunnel_port else 'native'}: {error}"
            return False
        self.mode, self.fault = wanted, ""
        return True


def realize(node: Node, port: int) -> int:
    """Have the tunnel's device with the newest programs, on UDP *port*, or (0) no such device; its index.

    Blocks for some milliseconds.

    Raises: Broken, NetlinkRefused.
    """
    from cirri.netlink import messages as m
    from cirri.netlink import read, sysctl

    if port and not any(":" not in address for address in node.addresses):
        raise Broken("this node has no IPv4 address for tunnels to end at")
    with Channel() as channel:
        index = channel.index(DEVICE)
        if index and read.tunnel_port(channel, index) != port:
            channel.apply([m.link_delete(DEVICE)])
            index = 0
        if port:
            if not index:
                channel.apply([m.vxlan(DEVICE, port=port, mtu=node.tunnel_mtu)])
                index = channel.index(DEVICE)
                sysctl.ensure(sysctl.device(DEVICE))
            into, out = node.programs[FROM_OVERLAY].fd, node.programs[TO_OVERLAY].fd
            channel.apply(
                [
                    m.clsact(index, name=DEVICE),
                    m.program(index, hook=m.INGRESS, fd=into, label="from_overlay", name=DEVICE),
                    m.program(index, hook=m.EGRESS, fd=out, label="to_overlay", name=DEVICE),
                    m.no_link_local(index, name=DEVICE),
                    m.link_mtu(index, node.tunnel_mtu, name=DEVICE),
                    m.link_up(index, name=DEVICE, arp=False),
                ]
            )
    node.tunnel = index
    return index
