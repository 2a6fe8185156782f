"""``cirri-identity``: read this file to see what the service is made of."""

from __future__ import annotations

import asyncio

from msgspec import json

from cirri.identity import SERVICE
from cirri.identity.demand import Demand
from cirri.identity.keeper import Keeper
from cirri.identity.needs import Needs
from cirri.identity.sources import Sources
from cirri.kv import BusError
from cirri.model import IDENTITIES
from cirri.runtime import Runtime, run

LOOK_S = 0.5
"""How often unused numbers and label sets without one are looked at when nothing else happens."""


async def serve(rt: Runtime) -> None:
    """Number label sets until cancelled."""
    stored = rt.table(IDENTITIES)
    publisher = rt.publisher(IDENTITIES)
    clock = asyncio.get_running_loop().time
    demand = Demand()
    needs = Needs(demand, rt.log.warning)
    sources = Sources(rt.table, needs)
    keeper = Keeper(rt.bus, publisher, stored, demand, now=clock, log=rt.log.warning)

    async def status(_: bytes) -> bytes:
        return json.encode(
            {
                "identities": len(keeper.book),
                "waiting": keeper.waiting,
                "exhausted": {",".join(labels): why for labels, why in keeper.errors.items()},
                "label_filter_error": needs.filter_error,
            }
        )

    await rt.handle("status", status)
    await publisher.start()
    keeper.found(publisher.stored.values())
    await sources.next()
    await sources.caught_up()
    complete, look_at = False, 0.0
    while True:
        look = clock() >= look_at
        try:
            await keeper.allocate(again=look)
            if not complete:
                await publisher.complete()
                complete = True
                count(rt, keeper)
            if look:
                await keeper.release(settled=sources.settled, whole=sources.whole)
                look_at = clock() + LOOK_S
        except BusError as error:
            rt.log.warning("bus refuses", error=str(error))
        rt.ready("numbers", not keeper.errors, next(iter(keeper.errors.values()), ""))
        rt.ready("label filter", not needs.filter_error, needs.filter_error)
        await sources.next(LOOK_S)


def count(rt: Runtime, keeper: Keeper) -> None:
    """Have the metrics say how many there are; imported here, after every set has its number."""
    from cirri.runtime.gauges import Gauges

    gauges = {
        "label_sets": ("Label sets with a number", lambda: len(keeper.book)),
        "label_sets_without_number": ("Label sets whose numbers are all taken", lambda: len(keeper.errors)),
    }
    rt.metrics.register(Gauges(SERVICE.name, gauges))


def main() -> None:
    """Entry point."""
    run(SERVICE, serve)


if __name__ == "__main__":
    main()
