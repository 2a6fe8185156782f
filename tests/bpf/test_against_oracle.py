"""The oracle, the engine and the programs in the kernel say the same of a hundred thousand packets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cirri.datapath.identify import flags_of, goals_of
from cirri.datapath.kernel import Kernel
from cirri.testing.proof.agreement import SHARES, Tally, agree
from cirri.testing.proof.kernel import Writer, programs
from cirri.testing.spread import spread

WORLDS, PACKETS = 400, 250


def put(seeds: Sequence[int]) -> Tally:
    """Puts the packets of some worlds to all three."""
    tally = Tally()
    with programs(Writer(Kernel, goals_of, flags_of)) as kernel:
        for seed in seeds:
            agree(seed, PACKETS, tally, kernel.fates)
    return tally


def test_three_readings_of_a_hundred_thousand_packets(built: Path) -> None:
    tally = Tally.together(spread(put, range(WORLDS)))
    assert tally.cases == 100_000
    tally.check(SHARES)
