"""The compiler, its entries and its lookup against a second reading of the reference, on random clusters."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from cirri.engine.entries import ANYBODY
from cirri.engine.redirects import expand
from cirri.testing.proof.ablation import ablations, decisive
from cirri.testing.proof.agreement import SHARES, Tally, agree
from cirri.testing.proof.engine import Engine
from cirri.testing.proof.worlds import HEALTH_AND_INIT, cases, world
from cirri.testing.spread import spread

WORLDS, PACKETS = 200, 100


def put(seeds: Sequence[int]) -> Tally:
    """Puts the packets of some worlds to both."""
    tally = Tally()
    for seed in seeds:
        agree(seed, PACKETS, tally)
    return tally


def test_every_verdict_is_the_oracles() -> None:
    """Packets of protocols that the programs drop unasked (GRE) are only met here."""
    tally = Tally.together(spread(put, range(1_000_000, 1_000_000 + WORLDS)))
    tally.check(SHARES)


def test_the_entries_of_a_peer_do_not_depend_on_the_others() -> None:
    for seed in range(2_000_000, 2_000_000 + 40):
        engine = Engine(world(Random(seed)))
        for party in (*engine.world.pods, *HEALTH_AND_INIT):
            policy = engine.policy(party)
            found = engine.entries(policy)
            for peer in {key.identity for key in found} - {ANYBODY}:
                wanted = {key: value for key, value in found.items() if key.identity in {peer, ANYBODY}}
                assert expand(policy, engine.sets, only=[peer, ANYBODY]).entries == wanted


def test_every_part_of_the_language_decides_something() -> None:
    """Without it some verdict would be another: the proof is not about half of the language."""
    undecided = set(ablations())
    for seed in range(1000):
        random = Random(seed)
        where = world(random)
        undecided -= decisive(undecided, where, cases(random, where, 100))
        if not undecided:
            break
    assert not undecided
