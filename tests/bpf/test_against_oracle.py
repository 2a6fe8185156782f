"""The oracle, the engine and the programs in the kernel say the same of a hundred thousand packets."""

from __future__ import annotations

from pathlib import Path

from cirri.datapath.identify import flags_of, goals_of
from cirri.datapath.kernel import Kernel
from cirri.testing.proof.agreement import SHARES, Tally, agree
from cirri.testing.proof.kernel import Writer, programs

WORLDS, PACKETS = 400, 250


def test_three_readings_of_a_hundred_thousand_packets(built: Path) -> None:
    tally = Tally()
    with programs(Writer(Kernel, goals_of, flags_of)) as kernel:
        for seed in range(WORLDS):
            agree(seed, PACKETS, tally, kernel.fates)
    assert tally.cases == 100_000
    tally.check(SHARES)
