"""Row PROOF: a million packets put to the oracle, to the engine and to the programs in the kernel."""

from __future__ import annotations

import time
from collections.abc import Sequence

from integration.bench.report import Line, Report
from integration.bench.rounds import Effort
from integration.bench.stats import Goal, Interval

from cirri.datapath.identify import flags_of, goals_of
from cirri.datapath.kernel import Kernel
from cirri.testing.proof.agreement import SHARES, Disagreement, Tally, agree
from cirri.testing.proof.kernel import Writer, programs

WORLDS, PACKETS = 4000, 250
FIRST_SEED = 10_000_000
"""Other worlds than those of the tests."""


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row PROOF; *effort* of 15 rounds or more means all million."""
    worlds = WORLDS if effort.rounds >= 15 else 40 * effort.rounds
    tally, started, differences = Tally(), time.monotonic(), 0.0
    with programs(Writer(Kernel, goals_of, flags_of)) as kernel:
        for seed in range(FIRST_SEED, FIRST_SEED + worlds):
            try:
                agree(seed, PACKETS, tally, kernel.fates)
            except Disagreement as found:
                differences += 1
                report.notes.append(f"{rows[0]}: {found}")
    tally.check(SHARES)
    spent = f"{(time.monotonic() - started) / tally.cases * 1e6:.0f} us a packet"
    report.raw[rows[0]] = dict(tally.verdicts)
    report.lines.append(
        Line(
            rows[0],
            f"oracle, engine and kernel: {tally.cases:,} packets of {worlds:,} random clusters",
            spent,
            Interval(differences, differences, differences),
            unit=" clusters differ",
            goal=Goal(at_most=0, unit=" clusters"),
        )
    )
