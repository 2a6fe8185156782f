"""The maps that programs read, each with a copy of what is in it, so that only differences are written.

The copies are read back from the pinned maps at start: a restarted service continues where the
one before was killed, and clears nothing that is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from cirri.datapath.ipcache import Ipcache
from cirri.datapath.policies import Policies
from cirri.datapath.services import Services
from cirri.layout import (
    ENDPOINTS,
    IPCACHE,
    LB_FLOWS,
    LB_REVERSE,
    MASQUERADE_NOT,
    POLICY,
    RUNTIME,
    RuntimeConfig,
    RuntimeFlag,
)
from cirri.layout.mirror import NO_ADDRESS
from cirri.layout.tracing import Tracing
from cirri.maps import BpfMap, open_pinned


@dataclass(slots=True)
class Switches:
    """``cirri_runtime``: the epoch that makes cached verdicts be taken again, and switches."""

    map: BpfMap[int, RuntimeConfig]
    value: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        self.value = self.map.get(0) or RuntimeConfig()

    def next_epoch(self) -> None:
        """Have every connection's verdict taken again with its next packet."""
        self._set(epoch=(self.value.epoch + 1) & 0xFFFF_FFFF)

    def backends_left(self) -> None:
        """Have every connection through a Service look whether its backend is still there."""
        self._set(lb_epoch=(self.value.lb_epoch + 1) & 0xFFFF_FFFF)

    def uplink(self, index: int) -> None:
        """Name the device that leads to the other nodes."""
        self._set(uplink_ifindex=index, flags=int(self.value.flags | RuntimeFlag.OWN_FRAMES))

    def tunnel(self, index: int, port: int = 0) -> None:
        """Name the device that packets to other nodes' pods take, and its UDP port; 0: the uplink, as they
        are."""
        self._set(tunnel_ifindex=index, tunnel_port=port if index else 0)

    def masquerade(self, nat4: bytes, nat6: bytes, *, ipv4: bool, ipv6: bool) -> None:
        """Name the node's addresses, and say of which families what pods send out leaves under them."""
        flags = RuntimeFlag(self.value.flags) & ~(RuntimeFlag.MASQUERADE4 | RuntimeFlag.MASQUERADE6)
        if ipv4 and nat4 != NO_ADDRESS:
            flags |= RuntimeFlag.MASQUERADE4
        if ipv6 and nat6 != NO_ADDRESS:
            flags |= RuntimeFlag.MASQUERADE6
        self._set(flags=int(flags), nat4=nat4, nat6=nat6)

    @property
    def traces(self) -> bool:
        """Whether it was ever said what observers are told."""
        return bool(self.value.trace_interval)

    def trace(self, wanted: Tracing) -> None:
        """Say of which packets observers are told."""
        flags = RuntimeFlag(self.value.flags) & ~(RuntimeFlag.TRACE_EACH | RuntimeFlag.TRACE_FROM)
        self._set(
            flags=int(flags | wanted.switches), trace_interval=wanted.ticks, trace_flags=wanted.tcp_flags
        )

    @property
    def host_firewall(self) -> bool:
        """Whether the node's own traffic is judged."""
        return bool(self.value.flags & RuntimeFlag.HOST_FIREWALL)

    @host_firewall.setter
    def host_firewall(self, on: bool) -> None:
        self.switch(RuntimeFlag.HOST_FIREWALL, on=on)

    def switch(self, flag: RuntimeFlag, *, on: bool) -> None:
        """Set flags, or clear them."""
        flags = RuntimeFlag(self.value.flags) & ~flag
        self._set(flags=int(flags | flag if on else flags))

    def _set(self, **fields: int | bytes) -> None:
        value = replace(self.value, **fields)
        if value != self.value:
            self.value = value
            self.map.put(0, value)


class Kernel:
    """All maps of a node that this service writes."""

    def __init__(self, bpffs: Path) -> None:
        self.runtime = Switches(open_pinned(bpffs, RUNTIME))
        self.ipcache = Ipcache(open_pinned(bpffs, IPCACHE))
        met = bool(self.runtime.value.flags & RuntimeFlag.POD_SERVICES)
        self.services = Services(bpffs, self.runtime.backends_left, pods_packets=met)
        self.reverse, self.flows = open_pinned(bpffs, LB_REVERSE), open_pinned(bpffs, LB_FLOWS)
        self.masquerade_not = open_pinned(bpffs, MASQUERADE_NOT)
        self.policies = Policies(open_pinned(bpffs, POLICY), open_pinned(bpffs, ENDPOINTS))
        self.runtime.next_epoch()  # what programs remember may be from before a crash

    def faults(self) -> list[str]:
        """What is not in the kernel although it should be, one sentence each."""
        found = [self.ipcache.fault, self.services.fault]
        found += [
            f"policy of identity {identity} is not all in force: {one.fault}"
            for identity, one in self.policies.sets.items()
            if one.fault
        ]
        return [sentence for sentence in found if sentence]
