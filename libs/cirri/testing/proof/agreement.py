"""Worlds by the thousand, in each of which every reading must say the same of every packet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from cirri.testing.oracle import Oracle, World
from cirri.testing.proof.compare import Sides, fate, fewest, minimal, reproduction, sides
from cirri.testing.proof.engine import Engine
from cirri.testing.proof.worlds import HERE, Case, cases, world


class Disagreement(AssertionError):
    """Two readings of the smallest world found that shows it."""


@dataclass
class Tally:
    """What the packets so far met: verdicts, and how many cases there were."""

    cases: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)

    def note(self, found: Sides) -> None:
        """Count one case."""
        self.cases += 1
        last = found[-1]
        self.verdicts[last.answer.verdict] += 1
        if last.answer.redirect:
            self.verdicts[f"proxy {last.answer.redirect}"] += 1
        if any(side.tried != side.answer for side in found):
            self.verdicts["audit"] += 1

    @classmethod
    def together(cls, parts: Iterable[Tally]) -> Tally:
        """What all *parts* met."""
        found = cls()
        for part in parts:
            found.cases += part.cases
            found.verdicts += part.verdicts
        return found

    def check(self, shares: dict[str, float]) -> None:
        """Every verdict has at least its share of all cases: the proof is about something."""
        for name, least in shares.items():
            share = self.verdicts[name] / self.cases
            assert share >= least, f"{name}: {share:.4f} of the cases, less than {least}: {self.verdicts}"


SHARES = {
    "allow": 0.25, "drop/D": 0.25, "drop/X": 0.04, "drop/A": 0.003, "audit": 0.01, "proxy http": 0.0005,
    "proxy dns": 0.0001, "proxy tls": 0.0005, "proxy kafka": 0.0003, "proxy generic": 0.0005,
    "proxy listener": 0.0001,
}  # fmt: skip
"""The least that each verdict must have of all cases."""

Programs = Callable[[Engine, list[Case]], list[str]]
"""What becomes of packets in the kernel, as :func:`fate` puts it; "" where it cannot be asked there."""


def agree(seed: int, count: int, tally: Tally, programs: Programs | None = None) -> None:
    """Put *count* packets of the world of *seed* to the oracle, the engine and *programs*.

    Raises Disagreement with the smallest world that shows the difference.
    """
    random = Random(seed)
    where = world(random)
    asked = cases(random, where, count)
    oracle, engine = Oracle(where, HERE), Engine(where)
    fates = programs(engine, asked) if programs else [""] * count
    for index, (case, seen) in enumerate(zip(asked, fates, strict=True)):
        wanted = sides(oracle, where, case)
        tally.note(wanted)
        if sides(engine, where, case) != wanted or (seen and seen != fate(wanted)):
            raise Disagreement(explain(seed, where, asked[: index + 1], programs))


def explain(seed: int, where: World, packets: list[Case], programs: Programs | None) -> str:
    """The answers about the last of *packets*, in the smallest world and after the fewest packets for which
    they differ."""

    def answers(candidate: World, sent: list[Case]) -> dict[str, object]:
        engine, last = Engine(candidate), sent[-1]
        oracle = sides(Oracle(candidate, HERE), candidate, last)
        found: dict[str, object] = {"oracle": _text(oracle)}
        found["engine"] = _text(sides(engine, candidate, last))
        if programs:
            seen = programs(engine, sent)[-1]
            found |= {"wanted": fate(oracle), "kernel": seen or fate(oracle)}
        return found

    def differ(candidate: World, sent: list[Case]) -> bool:
        found = answers(candidate, sent)
        return found["oracle"] != found["engine"] or found.get("wanted") != found.get("kernel")

    sent = packets[-1:]
    if not differ(where, sent):  # what came before matters
        sent = fewest(packets, lambda fewer: fewer[-1:] == sent and differ(where, fewer))
    smallest = minimal(where, sent, differ)
    return reproduction(seed, smallest, sent, answers(smallest, sent))


def _text(found: Sides) -> str:
    return "; ".join(map(str, found))
