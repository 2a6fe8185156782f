"""``cirri-l2``: read this file to see what the service is made of."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from cirri.l2 import SERVICE, answers
from cirri.l2.holding import Holding
from cirri.runtime import Runtime, run

COUNT_S = 1.0
"""Metrics are imported after what is urgent."""


async def serve(rt: Runtime) -> None:
    """Hold what is this node's until cancelled."""
    holding = Holding(rt)
    with suppress(OSError):  # without the capability it waits its turn among others
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    await holding.begin()
    await answers.serve(holding)
    asyncio.get_running_loop().call_later(COUNT_S, count, rt, holding)
    rt.tasks.create_task(holding.judge())
    await holding.run()


def count(rt: Runtime, holding: Holding) -> None:
    """Add to the metrics."""
    from cirri.runtime.gauges import Gauges

    segment = holding.segment
    gauges = {
        "addresses_held": ("Addresses that this node answers for", lambda: float(len(segment.held))),
        "addresses_taken": ("Addresses that it took over", lambda: float(segment.taken)),
        "answers": ("Requests and solicitations that its kernel answered", holding.answered),
        "announcements": ("Announcements that it sent", lambda: float(segment.sent)),
        "announcements_failed": ("Announcements that it could not send", lambda: float(segment.failed)),
        "blind": ("Whether it does not see who lives", holding.is_blind),
    }
    rt.metrics.register(Gauges(SERVICE.name, gauges))


def main() -> None:
    """Entry point."""
    run(SERVICE, serve)


if __name__ == "__main__":
    main()
