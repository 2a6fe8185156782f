"""Ports on which balancers outside are answered: opened, closed, shared, refused."""

import asyncio
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from cirri.datapath.balance import Name
from cirri.datapath.healthports import HealthPorts, owners
from cirri.loadbalancer import HealthCheck, LoadBalancerConfig
from cirri.testing.wait import eventually

A, B = Name("d", "a"), Name("d", "b")
NOWHERE = LoadBalancerConfig(healthz=None)


def free() -> tuple[socket.socket, int]:
    """A port that is taken as long as the socket lives."""
    taken = socket.socket()
    taken.bind(("0.0.0.0", 0))
    taken.listen()
    return taken, int(taken.getsockname()[1])


async def get(port: int, path: str = "/healthz") -> str:
    """Head and body, or what is wrong."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        return type(error).__name__
    writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    said = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return said


def test_owners() -> None:
    assert owners({B: 1, A: 2}) == ({1: B, 2: A}, {})
    found, faults = owners({B: 1, A: 1})
    assert found == {1: A}
    assert faults == {1: "Service d/b has no health check: Service d/a has port 1"}


def run(work: Callable[[Any, HealthPorts, int], Any]) -> None:
    """*work* with a balancer, what answers for it, and a free port."""

    async def main() -> None:
        taken, port = free()
        taken.close()
        balancer: Any = SimpleNamespace(
            node="n",
            checks={},
            checked=asyncio.Event(),
            config=NOWHERE,
            serving=True,
            updated=datetime.now(UTC),
            views=SimpleNamespace(node_objects={}),
        )
        ports = HealthPorts(balancer, lambda: None)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(ports.run())
            await work(balancer, ports, port)
            running.cancel()

    asyncio.run(main())


def test_a_port_is_open_as_long_as_its_service_wants_it() -> None:
    async def work(balancer: Any, ports: HealthPorts, port: int) -> None:
        balancer.checks[A] = HealthCheck(port, "d", "a", 1)
        balancer.checked.set()
        await eventually(lambda: port in ports._servers)
        said = await get(port)
        assert said.startswith("HTTP/1.1 200 ")
        assert "X-Load-Balancing-Endpoint-Weight: 1\r\n" in said
        assert said.endswith(
            '{"service":{"namespace":"d","name":"a"},"localEndpoints":1,"serviceProxyHealthy":true}'
        )
        balancer.checks[A] = HealthCheck(port, "d", "a", 0)
        assert (await get(port, "/")).startswith("HTTP/1.1 503 ")
        balancer.checks.clear()
        balancer.checked.set()
        await eventually(lambda: port not in ports._servers)
        assert await get(port) == "ConnectionRefusedError"

    run(work)


def test_a_port_that_somebody_has_is_a_fault_until_it_is_free() -> None:
    async def work(balancer: Any, ports: HealthPorts, _: int) -> None:
        taken, port = free()
        balancer.checks |= {A: HealthCheck(port, "d", "a", 1)}
        balancer.checked.set()
        await eventually(lambda: bool(ports.faults))
        words = f"the health check of Service d/a cannot be answered on port {port}: "
        assert ports.faults[port].startswith(words)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ports._step())
            await asyncio.sleep(0)
            assert ports.faults, "also while it is tried again"
        taken.close()
        balancer.checked.set()
        await eventually(lambda: not ports.faults)
        assert (await get(port)).startswith("HTTP/1.1 200 ")

    run(work)


def test_kube_proxys_own_check() -> None:
    async def work(balancer: Any, ports: HealthPorts, port: int) -> None:
        balancer.config = LoadBalancerConfig(healthz=("127.0.0.1", port))
        balancer.checked.set()
        await eventually(lambda: 0 in ports._servers)
        assert '"nodeEligible":true' in (said := await get(port))
        assert said.startswith("HTTP/1.1 200 ")
        assert "nodeEligible" not in await get(port, "/livez")
        balancer.serving = False
        assert (await get(port, "/livez")).startswith("HTTP/1.1 503 ")
        balancer.config = NOWHERE
        balancer.checked.set()
        await eventually(lambda: 0 not in ports._servers)

    run(work)
