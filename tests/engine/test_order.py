"""The maps follow from what is there, never from the way by which it came."""

from __future__ import annotations

from random import Random

from cirri.testing.proof.histories import Event, content, difference, history, report, straight
from cirri.testing.proof.worlds import world

WORLDS, HISTORIES = 200, 50


def test_the_way_leaves_no_trace() -> None:
    """10,000 histories: any order, detours, repeats, other configurations, and any split into deltas.

    Contradictions between rules are left out: their subjects keep what they had before by definition.
    """
    for seed in range(WORLDS):
        random = Random(seed)
        old, new = (content(world(random, pods=3, policies=2)) for _ in range(2))
        wanted = straight(Event(key, value) for key, value in new.items())
        for _ in range(HISTORIES):
            events = history(random, old, new)
            assert not difference(events, wanted), f"seed {seed}: {report(events)}"
