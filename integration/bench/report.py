"""What a run found, as lines of one table and as JSON.  Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from integration.bench.stats import Goal, Interval

COLUMNS = ("row", "what", "value", "ratio", "95 % interval", "goal", "", "what limits it")
LIMIT_WIDTH = 60


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of one row."""

    row: str
    """E.g. ``B1``."""
    what: str
    """Path or event, and against what, e.g. ``pod to pod / raw veth, IPv4``."""
    value: str = ""
    """The figure itself with its unit: a rate, a time."""
    ratio: Interval | None = None
    """Against the peer named in *what*; also holds absolute figures that have a bound (then *unit*)."""
    unit: str = ""
    goal: Goal | None = None
    limit: str = ""
    void: str = ""
    """Why the figure must not be used, e.g. that a path was not equal to itself."""

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, ``void`` or nothing where no goal is set."""
        if self.void:
            return "void"
        if self.goal is None:
            return ""
        return "met" if self.ratio is not None and self.goal.met(self.ratio) else "missed"


@dataclass(slots=True)
class Report:
    """Everything that a run found."""

    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences printed under the table: dropped rounds, failed rows."""
    failures: list[str] = field(default_factory=list)
    """Rows that could not be measured, or whose figures cannot be trusted."""
    raw: dict[str, Any] = field(default_factory=dict)
    """Samples behind the lines, for the JSON file."""
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def missed(self) -> list[Line]:
        """Lines whose goal was not met."""
        return [line for line in self.lines if line.verdict == "missed"]


def table(lines: Sequence[Line]) -> str:
    """*lines* in columns; a row's number stands only on its first line."""
    rows, last = [list(COLUMNS)], ""
    for line in lines:
        rows.append(_cells(line, line.row if line.row != last else ""))
        last = line.row
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    printed = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    printed.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(printed)


def _cells(line: Line, row: str) -> list[str]:
    ratio, interval = "", ""
    if line.ratio is not None:
        ratio = _number(line.ratio.median, line.unit)
        interval = f"{_number(line.ratio.low, line.unit)}..{_number(line.ratio.high, line.unit)}"
    goal = line.goal.text() if line.goal else ""
    limit = f"void: {line.void}" if line.void else line.limit
    return [row, line.what, line.value, ratio, interval, goal, line.verdict, limit]


def _number(value: float, unit: str) -> str:
    if unit:
        return f"{value:.2f}{unit}" if value < 100 else f"{value:.0f}{unit}"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def rate(value: float, unit: str = "/s") -> str:
    """A rate for people: ``44.2 k/s``, ``9.87 G/s``."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {letter}{unit}"
    return f"{value:.3g} {unit}"


def as_json(report: Report) -> str:
    """The whole report, samples included."""
    return json.dumps(
        {
            "machine": report.machine,
            "lines": [{**asdict(line), "verdict": line.verdict} for line in report.lines],
            "notes": report.notes,
            "failures": report.failures,
            "raw": report.raw,
        },
        indent=1,
        ensure_ascii=False,
    )
