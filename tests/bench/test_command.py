import pytest
from integration.bench.command import ROWS, parse, summary
from integration.bench.report import Line, Report
from integration.bench.stats import Goal, Interval


def test_everything_by_default() -> None:
    options = parse([])
    assert (options.rows, options.rounds, options.seconds, options.families) == (ROWS, 15, 1.0, (4, 6))


def test_rows_are_chosen() -> None:
    assert parse(["--rows", "b1, B12", "--families", "6"]).rows == ("B1", "B12")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rows", "B99"], f"B99: the rows are {', '.join(ROWS)}"),
        (["--rounds", "0"], "a number from 1 on"),
        (["--families", "5"], "4, 6 or 4,6"),
    ],
)
def test_a_wrong_call_says_what_is_right(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        parse(arguments)
    assert left.value.code == 2
    assert said in capsys.readouterr().err


def test_summary() -> None:
    machine = {"cpu": "a CPU", "cpus": 2, "kernel": "6.1", "load": 0.5, "commit": "abc"}
    line = Line("B1", "cirri / raw", ratio=Interval(0.9, 0.8, 0.95), goal=Goal(at_least=0.97))
    text = summary(Report(lines=[line], notes=["n"], failures=["B2: broken"], machine=machine))
    assert text.splitlines()[0] == "a CPU, 2 CPUs, Linux 6.1, load 0.50, commit abc"
    assert text.splitlines()[-3:] == [
        "note: n",
        "FAILED B2: broken",
        "0 of 1 goals met, 1 missed, 1 failures",
    ]
