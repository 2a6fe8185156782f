"""Services for packets of pods whose sockets do not look for them: when programs do, and until when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from cirri.datapath.kernel import Switches
from cirri.datapath.services import Services
from cirri.layout import LbFlow, LbFlowKey, RuntimeFlag, address16
from cirri.maps import BpfMap


class PodServices:
    """``RUNTIME_POD_SERVICES`` and ``RUNTIME_NODE_SOCKETS``.

    What pods' packets need is in the maps before sockets stop looking; after they look again it stays as
    long as a connection of a pod lives that packets opened.
    """

    def __init__(self, switches: Switches, services: Services, flows: BpfMap[LbFlowKey, LbFlow]) -> None:
        self._switches, self._services, self._flows = switches, services, flows
        self._needed = services.pods_packets

    @property
    def idle(self) -> bool:
        """Programs look, and only for connections that pods had before."""
        return self._services.pods_packets and not self._needed

    def step(self, *, node_sockets_only: bool, packets: bool) -> None:
        """Have sockets of pods left alone, or not; *packets*: there are Services that only packets meet."""
        self._needed = node_sockets_only or packets
        if self._needed:
            self._services.meet_pods_packets(True)
            self._switches.switch(RuntimeFlag.POD_SERVICES, on=True)
        self._switches.switch(RuntimeFlag.NODE_SOCKETS, on=node_sockets_only)

    async def settle(self, pods: Iterable[str]) -> None:
        """Look no more if no connection of *pods* (addresses) needs it."""
        clients = frozenset(map(address16, pods))
        if self.idle and not await asyncio.to_thread(self._live, clients) and self.idle:
            self._switches.switch(RuntimeFlag.POD_SERVICES, on=False)
            self._services.meet_pods_packets(False)

    def _live(self, clients: frozenset[bytes]) -> bool:
        now = time.monotonic_ns()
        return any(key.client in clients and flow.expires > now for key, flow in self._flows.items())
