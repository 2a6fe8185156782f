"""Two connections to one server, and values to send over them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from cirri.kv import Bus
from cirri.model import Endpoint, Identity
from cirri.testing.natsserver import NatsServer

Test = Callable[[Bus, Bus], Awaitable[None]]


def with_two(nats: NatsServer, test: Test) -> None:
    """Run *test* with two connections, which end with it."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            buses = [await Bus.connect(nats.url, name=name) for name in ("one", "two")]
            for bus in buses:
                stack.push_async_callback(bus.drain)
            await test(*buses)

    asyncio.run(main())


def identity(number: int, *labels: str) -> Identity:
    """An identity, of no labels unless some are given."""
    return Identity(id=number, labels=labels)


def endpoint(node: str, number: int, pod: str = "p") -> Endpoint:
    """An endpoint of *node*."""
    return Endpoint(node=node, id=number, namespace="d", pod=pod, container_id="c", interface="i")
