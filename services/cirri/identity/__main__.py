"""``cirri-identity``: read this file to see what the service is made of."""

from __future__ import annotations

import asyncio

from msgspec import json

from cirri.identity import SERVICE
from cirri.identity.keeper import Keeper
from cirri.kv import BusError, Table
from cirri.kv.news import News
from cirri.model import ENDPOINTS, IDENTITIES, RESOURCES, Endpoint
from cirri.model.config import CONFIG, config_data
from cirri.runtime import Runtime, run

LOOK_S = 0.5
"""How often unused numbers and label sets without one are looked at when nothing else happens."""


async def serve(rt: Runtime) -> None:
    """Number label sets until cancelled."""
    config = rt.table(RESOURCES, CONFIG)
    endpoints = rt.table(ENDPOINTS)
    stored = rt.table(IDENTITIES)
    publisher = rt.publisher(IDENTITIES)
    clock = asyncio.get_running_loop().time
    others = News({"identities": stored})

    async def refresh() -> None:
        await stored.caught_up()
        for key in others.take()["identities"]:
            keeper.identity(int(key), stored.get(key))

    keeper = Keeper(rt.bus, publisher, now=clock, refresh=refresh, log=rt.log.warning)

    async def status(_: bytes) -> bytes:
        return json.encode(
            {
                "identities": len(keeper.book),
                "exhausted": {",".join(labels): why for labels, why in keeper.errors.items()},
                "label_filter_error": keeper.filter_error,
            }
        )

    await rt.handle("status", status)
    await publisher.start()
    keeper.found(publisher.stored.values())

    inputs = News({"config": config, "endpoints": endpoints})
    news, complete, look_at = await inputs.next(), False, 0.0
    while True:
        keeper.configure(config_data(config), endpoints)
        for key in news["endpoints"]:
            keeper.endpoint(key, endpoints.get(key))
        try:
            await keeper.allocate()
            if not complete:
                await publisher.complete()
                complete = True
                count(rt, keeper)
            if clock() >= look_at:
                if others.pending:
                    await refresh()
                await keeper.release(settled=settled(endpoints))
                look_at = clock() + LOOK_S
        except BusError as error:
            rt.log.warning("bus refuses", error=str(error))
        rt.ready("numbers", not keeper.errors, next(iter(keeper.errors.values()), ""))
        rt.ready("label filter", not keeper.filter_error, keeper.filter_error)
        news = await inputs.next(LOOK_S)


def count(rt: Runtime, keeper: Keeper) -> None:
    """Have the metrics say how many there are; imported here, after every set has its number."""
    from cirri.runtime.gauges import Gauges

    gauges = {
        "label_sets": ("Label sets with a number", lambda: len(keeper.book)),
        "label_sets_without_number": ("Label sets whose numbers are all taken", lambda: len(keeper.errors)),
    }
    rt.metrics.register(Gauges(SERVICE.name, gauges))


def settled(endpoints: Table[Endpoint]) -> bool:
    """Whether every node that has endpoints has said that these are all."""
    nodes = {key.partition(".")[0] for key in endpoints}
    return not endpoints.stale and nodes <= endpoints.complete


def main() -> None:
    """Entry point."""
    run(SERVICE, serve)


if __name__ == "__main__":
    main()
