"""The maps follow from what is there, never from the way by which it came."""

from __future__ import annotations

from random import Random

from cirri.engine import EngineConfig
from cirri.testing.proof.histories import Published, content, difference, final, history, shortest
from cirri.testing.proof.worlds import configuration, world

WORLDS, HISTORIES = 200, 50


def test_the_way_leaves_no_trace() -> None:
    """10,000 histories: any order, detours, repeats, and any split into deltas.

    Contradictions between rules are left out: their subjects keep what they had before by definition.
    """
    for seed in range(WORLDS):
        random = Random(seed)
        settings = configuration(random)
        old, new = (content(world(random, pods=3, policies=2, config=settings)) for _ in range(2))
        config = EngineConfig.of(settings)
        wanted = ""
        for _ in range(HISTORIES):
            events = history(random, old, new)
            wanted = wanted or Published(config).follow(final(events)).digest()
            found = Published(config).follow(events).digest()
            if found != wanted:
                lines = "\n".join(map(str, shortest(config, events)))
                raise AssertionError(f"seed {seed}: {difference(config, events)}\n{lines}")
