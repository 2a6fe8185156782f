import random
from typing import Any

import pytest
from integration.bench import stats
from integration.bench.stats import CpuTimes, Goal, Interval, Round


@pytest.mark.parametrize(
    ("values", "share", "wanted"),
    [
        pytest.param([7], 0.99, 7, id="one value"),
        pytest.param([1, 2, 3], 0.5, 2, id="middle"),
        pytest.param([3, 1, 2], 0, 1, id="least, unordered"),
        pytest.param([1, 2, 3, 4], 1, 4, id="greatest"),
        pytest.param([0, 10], 0.25, 2.5, id="between two"),
    ],
)
def test_percentile(values: list[float], share: float, wanted: Any) -> None:
    assert stats.percentile(values, share) == wanted


def test_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        stats.percentile([], 0.5)


@pytest.mark.parametrize(
    ("share", "wanted"), [(0.0, 10), (0.49, 10), (0.5, 20), (0.98, 20), (0.99, 500), (1.0, 500)]
)
def test_percentile_of_a_histogram(share: float, wanted: Any) -> None:
    assert stats.weighted_percentile({500: 1, 10: 50, 20: 49}, share) == wanted


STAT = """\
cpu  20 0 20 160 0 0 0 0 0 0
cpu0 10 0 10 80 0 0 0 0 0 0
cpu1 10 1 10 70 1 2 3 3 5 0
intr 1
"""


def test_cpu_times_count_each_tick_once() -> None:
    # Guest time (the ninth column) is contained in user time.
    assert CpuTimes.parse(STAT, 1) == CpuTimes(total=100, steal=3)


def test_cpu_times_of_an_absent_cpu() -> None:
    with pytest.raises(KeyError, match="cpu7"):
        CpuTimes.parse(STAT, 7)


@pytest.mark.parametrize(
    ("after", "wanted"),
    [
        pytest.param(CpuTimes(200, 5), 0.02, id="two of a hundred"),
        pytest.param(CpuTimes(100, 3), 0.0, id="no time passed"),
    ],
)
def test_steal_is_a_share_of_the_time_passed(after: CpuTimes, wanted: Any) -> None:
    assert after.stolen_since(CpuTimes(100, 3)) == wanted


def test_disturbed_rounds_are_left_out() -> None:
    calm, edge, stolen = Round({}, 0.0), Round({}, 0.02), Round({}, 0.021)
    assert stats.undisturbed([calm, stolen, edge]) == [calm, edge]


def test_interval_holds_the_median_and_repeats() -> None:
    generator = random.Random(7)
    values = [generator.gauss(1, 0.01) for _ in range(15)]
    first, again = stats.bootstrap_median(values), stats.bootstrap_median(values)
    assert first == again
    assert first.low <= first.median <= first.high
    assert 0 < first.high - first.low < 0.03


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = random.Random(3)
    hits = 0
    for seed in range(60):
        values = [generator.gauss(1, 0.05) for _ in range(15)]
        found = stats.bootstrap_median(values, resamples=400, seed=seed)
        hits += found.low <= 1 <= found.high
    assert hits >= 52


def test_interval_of_equal_values_has_no_width() -> None:
    assert stats.bootstrap_median([2.0] * 5) == Interval(2.0, 2.0, 2.0)


def test_interval_of_a_percentile() -> None:
    found = stats.bootstrap_percentile([float(n) for n in range(1, 101)], 0.99)
    assert found.median == pytest.approx(99.01)
    assert found.low < found.median <= found.high <= 100


def turn(**rates: float) -> Round:
    return Round({name: {"rate": rate} for name, rate in rates.items()})


def test_ratios_are_taken_within_a_round() -> None:
    # The machine is half as fast in the second round: the ratio does not notice.
    rounds = [turn(raw=100, cirri=97), turn(raw=50, cirri=48.5), turn(raw=100, cirri=97)]
    assert stats.ratio(rounds, "cirri", "raw") == Interval(0.97, 0.97, 0.97)


def test_a_round_without_the_peer_does_not_count() -> None:
    assert stats.ratios([turn(raw=100, cirri=90), turn(cirri=90)], "cirri", "raw") == [0.9]


@pytest.mark.parametrize(("again", "equal"), [(101, True), (98, True), (97.9, False), (103, False)])
def test_a_path_must_equal_itself(again: float, equal: bool) -> None:
    assert stats.same([turn(a=100, b=again)] * 3, "b", "a")[1] is equal


def test_ratio_of_samples_without_pairs() -> None:
    found = stats.ratio_of_medians([2.0] * 20, [4.0] * 30)
    assert found == Interval(0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("goal", "interval", "met"),
    [
        pytest.param(Goal(at_least=0.97), Interval(0.98, 0.97, 0.99), True, id="lower end meets it"),
        pytest.param(Goal(at_least=0.97), Interval(0.98, 0.969, 0.99), False, id="lower end misses it"),
        pytest.param(Goal(at_most=1.05), Interval(1.0, 0.9, 1.05), True, id="upper end meets it"),
        pytest.param(Goal(at_most=1.05), Interval(1.0, 0.9, 1.06), False, id="upper end misses it"),
    ],
)
def test_a_goal_is_met_by_the_unfavourable_end(goal: Goal, interval: Interval, met: bool) -> None:
    assert goal.met(interval) is met


@pytest.mark.parametrize(
    ("goal", "text"),
    [(Goal(at_least=0.97), "≥ 0.97"), (Goal(at_most=10, unit=" ms"), "≤ 10 ms"), (Goal(1, 2), "≥ 1, ≤ 2")],
)
def test_a_goal_in_words(goal: Goal, text: str) -> None:
    assert goal.text() == text
