"""``cirri-sensor``: read this file to see what the service is made of."""

from __future__ import annotations

from cirri.runtime import Runtime, run
from cirri.runtime.gauges import Gauges
from cirri.sensor import SERVICE


async def serve(rt: Runtime) -> None:
    """Tell which programs run, until cancelled."""
    rt.ready("reading", False, "the kernel's events are not read yet")
    from cirri.sensor.keeper import Keeper, gauges

    keeper = Keeper(rt)
    rt.metrics.register(Gauges(SERVICE.name, gauges(keeper)))
    await keeper.run()


def main() -> None:
    """Entry point."""
    run(SERVICE, serve)


if __name__ == "__main__":
    main()
