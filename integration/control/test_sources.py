"""When the identity service may take silence for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from integration.control.world import WEB, bus, endpoint

from cirri.identity.demand import Demand
from cirri.identity.needs import Needs
from cirri.identity.sources import Sources
from cirri.kv import Bus
from cirri.model import ENDPOINTS, NODES, RESOURCES, SELECTORS, NodeStatus, Resource
from cirri.testing.natsserver import NatsServer
from cirri.testing.wait import eventually


@asynccontextmanager
async def sources(own: Bus) -> AsyncIterator[tuple[Sources, Demand]]:
    """What a service that has just been started reads."""
    demand = Demand()
    before = len(own.tables)
    found = Sources(own.table, Needs(demand))
    made = own.tables[before:]
    for table in made:
        await table.start()
    yield found, demand
    for table in made:
        await table.close()


def test_silence_is_an_answer_only_of_those_who_have_spoken() -> None:
    async def scenario(own: Bus) -> None:
        resources, selectors = own.publisher(RESOURCES), own.publisher(SELECTORS)
        endpoints, nodes = own.publisher(ENDPOINTS, "n1"), own.publisher(NODES, "n1")
        await resources.replace([Resource(kind="Node", name="n1")])
        await endpoints.replace([endpoint(1, WEB)])
        async with sources(own) as (first, demand):
            await first.next()
            assert demand.wants(WEB), "endpoints are known"
            assert not first.settled, "neither the selectors nor the nodes are"
            await nodes.replace([NodeStatus(node="n1")])
            await selectors.replace([])
            await eventually(lambda: first.settled, what="all have spoken")
            assert first.whole
            await resources.put(Resource(kind="Node", name="n2"))
            await eventually(lambda: not first.whole, what="the new node is known")
            assert first.settled, "of those who are there everything is known"
            await own.publisher(ENDPOINTS, "n2").replace([])
            await own.publisher(NODES, "n2").replace([NodeStatus(node="n2")])
            await eventually(lambda: first.whole, what="the new node has spoken")
        async with sources(own) as (second, demand):
            await second.next()
            await eventually(lambda: second.settled and second.whole, what="the same to one who comes later")
            assert demand.wants(WEB)

    async def main() -> None:
        with NatsServer() as server:
            async with bus(server) as own:
                await scenario(own)

    asyncio.run(main())
