"""``cirri-flows``: read this file to see what the service is made of.

What reads rows is imported late: numpy alone takes as long as a whole other service, and a node's start
is no time to wait for it.
"""

from __future__ import annotations

import asyncio
from importlib import import_module

from cirri.flows import SERVICE
from cirri.runtime import Runtime, run

SETTLE_S = 1.0
"""After the start: the kernel's ring keeps what happens meanwhile."""


async def serve(rt: Runtime) -> None:
    """Keep the node's flows until cancelled."""
    rt.ready("reading", False, "the kernel's events are not read yet")
    await asyncio.sleep(SETTLE_S)
    # It takes a second, and on a busy machine several: meanwhile others want to know how the service is.
    await asyncio.to_thread(import_module, "cirri.flows.keeper")
    from cirri.flows.keeper import Keeper, gauges
    from cirri.runtime.gauges import Gauges

    keeper = Keeper(rt)
    rt.metrics.register(Gauges(SERVICE.name, gauges(keeper)))
    await keeper.run()


def main() -> None:
    """Entry point."""
    run(SERVICE, serve)


if __name__ == "__main__":
    main()
