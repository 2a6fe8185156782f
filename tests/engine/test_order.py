"""The maps follow from what is there, never from the way by which it came."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from unittest.mock import patch

from cirri.engine import EngineConfig, parse
from cirri.engine.rule import Finding, ObjectRule
from cirri.model import Resource
from cirri.testing.proof.histories import Event, content, difference, history, report, straight
from cirri.testing.proof.worlds import world
from cirri.testing.spread import spread

WORLDS, HISTORIES = 200, 50


class Remembered:
    """The parser, of which each object of a world is asked once for each configuration: it is a function of
    these two, and most of a history's time went there."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, EngineConfig], tuple[list[ObjectRule], list[Finding]]] = {}

    def __call__(self, resource: Resource, config: EngineConfig) -> tuple[list[ObjectRule], list[Finding]]:
        key = (id(resource), config)
        if key not in self._found:
            self._found[key] = parse.read(resource, config)
        return self._found[key]


def follow(seeds: Sequence[int]) -> None:
    """Goes all ways to the worlds of *seeds*."""
    for seed in seeds:
        random = Random(seed)
        old, new = (content(world(random, pods=3, policies=2)) for _ in range(2))
        with patch("cirri.engine.compile.read", Remembered()):
            wanted = straight(Event(key, value) for key, value in new.items())
            for _ in range(HISTORIES):
                events = history(random, old, new)
                assert not difference(events, wanted), f"seed {seed}: {report(events)}"


def test_the_way_leaves_no_trace() -> None:
    """10,000 histories: any order, detours, repeats, other configurations, and any split into deltas.

    Contradictions between rules are left out: their subjects keep what they had before by definition.
    """
    spread(follow, range(WORLDS))
