"""The statistics of a ratio that survives a noisy machine.  Pure: numbers in, numbers out.

Rules, for every comparison: rounds interleaved over all peers, ratios taken within a round, the
median of them with a bootstrap interval, rounds disturbed by the hypervisor left out, and a
comparison of a path with itself that must give one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

STEAL_LIMIT = 0.02
"""A round in which the hypervisor took more than this share of the CPU is dropped."""

SAME_TOLERANCE = 0.02
"""A path against itself must give 1.00 within this, or the run is void."""

RESAMPLES = 4000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and the bounds between which it lies with :data:`CONFIDENCE`."""

    median: float
    low: float
    high: float


def weighted_percentile(histogram: Mapping[float, int], share: float) -> float:
    """The value of *histogram* (value: how often) below which *share* (0..1) of them lie."""
    wanted, seen = share * sum(histogram.values()), 0
    for value in sorted(histogram):
        seen += histogram[value]
        if seen > wanted:
            return value
    return max(histogram)


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Ticks of one CPU since boot, from a line of /proc/stat."""

    total: int
    steal: int

    @classmethod
    def parse(cls, text: str, cpu: int) -> CpuTimes:
        """The times of *cpu* in *text*, the contents of /proc/stat; KeyError if it has no such line."""
        for line in text.splitlines():
            name, *fields = line.split()
            if name == f"cpu{cpu}":
                ticks = [int(field) for field in fields[:8]]  # guest time is part of user time
                return cls(total=sum(ticks), steal=ticks[7] if len(ticks) > 7 else 0)
        raise KeyError(f"cpu{cpu}")

    def stolen_since(self, before: CpuTimes) -> float:
        """Share of the ticks since *before* that the hypervisor took, 0..1."""
        total = self.total - before.total
        return (self.steal - before.steal) / total if total > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Round:
    """One turn through all peers: each one's figures, and the share of the CPU stolen meanwhile."""

    samples: Mapping[str, Mapping[str, float]]
    """By peer, by figure, e.g. ``{"raw": {"rate": 44200.0, "p99_us": 31.0}}``."""
    steal: float = 0.0


def undisturbed(rounds: Sequence[Round], limit: float = STEAL_LIMIT) -> list[Round]:
    """The rounds during which no more than *limit* of the CPU was stolen."""
    return [turn for turn in rounds if turn.steal <= limit]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which *share* (0..1) of *values* lies, by linear interpolation."""
    if not values:
        raise ValueError("percentile of nothing")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def bootstrap_median(values: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 1) -> Interval:
    """Median of *values* with its bootstrap interval; the same values give the same bounds."""
    return _bootstrap(values, median, resamples, seed)


def bootstrap_percentile(
    values: Sequence[float], share: float, *, resamples: int = RESAMPLES, seed: int = 1
) -> Interval:
    """Percentile *share* of *values* with its bootstrap interval (``median`` holds the percentile)."""
    return _bootstrap(values, lambda sample: percentile(sample, share), resamples, seed)


def _bootstrap(
    values: Sequence[float], figure: Callable[[Sequence[float]], float], resamples: int, seed: int
) -> Interval:
    if not values:
        raise ValueError("interval of nothing")
    generator = random.Random(seed)
    found = sorted(figure(generator.choices(values, k=len(values))) for _ in range(resamples))
    tail = (1 - CONFIDENCE) / 2
    return Interval(figure(values), percentile(found, tail), percentile(found, 1 - tail))


def ratios(rounds: Sequence[Round], subject: str, peer: str, figure: str = "rate") -> list[float]:
    """*subject*'s *figure* over *peer*'s, in each round that has both."""
    return [
        turn.samples[subject][figure] / turn.samples[peer][figure]
        for turn in rounds
        if subject in turn.samples and turn.samples.get(peer, {}).get(figure)
    ]


def ratio(rounds: Sequence[Round], subject: str, peer: str, figure: str = "rate") -> Interval:
    """Median of the per-round ratios with its interval; ValueError if no round has both."""
    return bootstrap_median(ratios(rounds, subject, peer, figure))


def ratio_of_medians(subject: Sequence[float], peer: Sequence[float], *, share: float = 0.5) -> Interval:
    """Percentile *share* of *subject* over that of *peer*, for samples that do not come in pairs."""
    generator = random.Random(1)
    found = sorted(
        percentile(generator.choices(subject, k=len(subject)), share)
        / percentile(generator.choices(peer, k=len(peer)), share)
        for _ in range(RESAMPLES // 4)
    )
    tail = (1 - CONFIDENCE) / 2
    here = percentile(subject, share) / percentile(peer, share)
    return Interval(here, percentile(found, tail), percentile(found, 1 - tail))


def same(rounds: Sequence[Round], left: str, right: str) -> tuple[Interval, bool]:
    """The ratio of two equal paths, and whether it is one within :data:`SAME_TOLERANCE`."""
    found = ratio(rounds, left, right)
    return found, abs(found.median - 1) <= SAME_TOLERANCE + 1e-9


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound that the unfavourable end of an interval must meet."""

    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""

    def met(self, found: Interval) -> bool:
        """Whether the whole interval, not only its median, is on the good side."""
        return (self.at_least is None or found.low >= self.at_least) and (
            self.at_most is None or found.high <= self.at_most
        )

    def text(self) -> str:
        """E.g. ``≥ 0.97``."""
        bounds = (("≥", self.at_least), ("≤", self.at_most))
        return ", ".join(f"{sign} {bound:g}{self.unit}" for sign, bound in bounds if bound is not None)
