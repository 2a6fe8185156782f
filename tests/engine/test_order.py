"""The maps follow from what is there, never from the way by which it came."""

from __future__ import annotations

from random import Random

from cirri.testing.proof.histories import Published, content, difference, final, history, shortest
from cirri.testing.proof.worlds import world

WORLDS, HISTORIES = 200, 50


def test_the_way_leaves_no_trace() -> None:
    """10,000 histories: any order, detours, repeats, other configurations, and any split into deltas.

    Contradictions between rules are left out: their subjects keep what they had before by definition.
    """
    for seed in range(WORLDS):
        random = Random(seed)
        old, new = (content(world(random, pods=3, policies=2)) for _ in range(2))
        wanted = ""
        for _ in range(HISTORIES):
            events = history(random, old, new)
            wanted = wanted or Published().follow(final(events)).digest()
            found = Published().follow(events).digest()
            if found != wanted:
                lines = "\n".join(map(str, shortest(events)))
                raise AssertionError(f"seed {seed}: {difference(events)}\n{lines}")
