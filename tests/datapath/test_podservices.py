"""Whether programs look for Services in packets of pods: on before sockets stop, off when nobody needs it."""

import asyncio
import time

from cirri.datapath.kernel import Kernel
from cirri.datapath.podservices import PodServices
from cirri.layout import LbFlow, LbFlowKey, RuntimeFlag, address16

from .test_kernel import pinned

POD = "10.52.0.4"
BOTH = RuntimeFlag.POD_SERVICES | RuntimeFlag.NODE_SOCKETS


def test_they_look_as_long_as_a_connection_needs_it() -> None:
    with pinned() as bpffs:
        kernel = Kernel(bpffs)
        pods = PodServices(kernel.runtime, kernel.services, kernel.flows)

        def flags() -> int:
            return kernel.runtime.map[0].flags

        def settle() -> int:
            asyncio.run(pods.settle([POD]))
            return flags()

        pods.step(node_sockets_only=False, packets=False)
        assert settle() == 0
        pods.step(node_sockets_only=False, packets=True)
        assert (settle(), kernel.services.pods_packets) == (RuntimeFlag.POD_SERVICES, True)
        pods.step(node_sockets_only=True, packets=False)
        assert settle() == BOTH
        key = LbFlowKey(
            client=address16(POD), address=address16("10.96.0.1"), client_port=4000, port=80, protocol=6
        )
        flow = LbFlow(
            address=address16("10.52.0.5"), expires=time.monotonic_ns() + 10**11, epoch=0, port=8080
        )
        kernel.flows.put(key, flow)
        pods.step(node_sockets_only=False, packets=False)
        assert settle() == RuntimeFlag.POD_SERVICES
        again = Kernel(bpffs)
        restarted = PodServices(again.runtime, again.services, again.flows)
        restarted.step(node_sockets_only=False, packets=False)
        asyncio.run(restarted.settle([POD]))
        assert flags() == RuntimeFlag.POD_SERVICES
        kernel.flows.delete(key)
        assert (settle(), kernel.services.pods_packets) == (0, False)
