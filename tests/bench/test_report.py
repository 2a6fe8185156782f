import json

import pytest
from integration.bench.report import Line, Report, as_json, rate, table
from integration.bench.stats import Goal, Interval

MET = Line("B1", "cirri / raw", "44 k/s", Interval(0.98, 0.975, 0.985), goal=Goal(at_least=0.97))
MISSED = Line(
    "B1", "cirri / raw", "40 k/s", Interval(0.9, 0.89, 0.91), goal=Goal(at_least=0.97), limit="policy"
)
VOID = Line(
    "B2", "cirri / raw", "40 k/s", Interval(0.99, 0.98, 1.0), goal=Goal(at_least=0.9), void="raw gave 1.04"
)
PLAIN = Line("B2", "bridge / raw", "30 k/s", Interval(0.8, 0.79, 0.81))
TIME = Line(
    "B12", "p99", "60 changes", Interval(8.1234, 7.0, 9.0), unit=" ms", goal=Goal(at_most=10, unit=" ms")
)


@pytest.mark.parametrize(
    ("line", "verdict"),
    [(MET, "met"), (MISSED, "missed"), (VOID, "void"), (PLAIN, ""), (TIME, "met"),
     (Line("MEM", "x", goal=Goal(at_most=1)), "missed")],
    ids=["met", "missed", "void", "no goal", "absolute", "not measured"],
)  # fmt: skip
def test_verdict(line: Line, verdict: str) -> None:
    assert line.verdict == verdict


def test_table() -> None:
    printed = table([MET, MISSED, VOID, TIME]).splitlines()
    assert [line.split()[0] for line in printed[2:]] == ["B1", "cirri", "B2", "B12"]
    assert "0.975..0.985" in printed[2]
    assert printed[3].endswith("missed  policy")
    assert "void: raw gave 1.04" in printed[4]
    assert "8.12 ms" in printed[5]
    assert "7.00 ms..9.00 ms" in printed[5]
    assert len({line.index("≥") for line in printed[2:5]}) == 1


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(44200, "/s", "44.2 k/s"), (1.25e9, "B/s", "1.25 GB/s"), (12, "/s", "12 /s"), (3.2e6, "/s", "3.2 M/s")],
)
def test_rate(value: float, unit: str, text: str) -> None:
    assert rate(value, unit) == text


def test_json_holds_everything() -> None:
    report = Report(lines=[MET], notes=["n"], failures=["f"], raw={"B1": [1]}, machine={"cpus": 2})
    read = json.loads(as_json(report))
    assert read["lines"][0]["verdict"] == "met"
    assert read["lines"][0]["ratio"] == {"median": 0.98, "low": 0.975, "high": 0.985}
    assert (read["notes"], read["failures"], read["raw"], read["machine"]) == (
        ["n"],
        ["f"],
        {"B1": [1]},
        {"cpus": 2},
    )
