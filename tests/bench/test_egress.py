"""What row B22 makes of its samples."""

import pytest
from integration.bench.egress import AGAIN, FREE, MASQUERADE, NFT, delay_lines, leak_lines, rate_lines
from integration.bench.rounds import Mode, Series
from integration.bench.stats import Round


def series(mode: Mode, cirri: float) -> Series:
    rates = {MASQUERADE: 1.0, AGAIN: 1.0, NFT: 1.02, FREE: 1.2, "cirri": cirri}
    samples = {name: {"rate": 1000.0 * rate, "p99_us": 20.0, "count": 1000} for name, rate in rates.items()}
    return Series(mode, 4, [Round(samples)] * 15, 0, {})


@pytest.mark.parametrize(("cirri", "verdict"), [(1.25, "met"), (1.1, "missed")])
def test_connections_have_a_goal_and_its_limit(cirri: float, verdict: str) -> None:
    (line,) = (each for each in rate_lines("B22", series("crr", cirri)) if each.goal)
    assert (line.verdict, line.limit) == (verdict, "routing without NAT: 1.200 of it")


def test_streams_have_none() -> None:
    assert not [each for each in rate_lines("B22", series("stream", 1.0)) if each.goal]


def test_one_packet_under_a_pods_address_is_too_many() -> None:
    assert [
        line.verdict for leaked in (0, 1) for line in leak_lines("B22", {"arrived": 1000, "leaked": leaked})
    ] == ["met", "missed"]


def test_the_slowest_changes_count() -> None:
    assert [line.verdict for line in delay_lines("B22", [5.0] * 60)] == ["", "met"]
    assert [line.verdict for line in delay_lines("B22", [5.0] * 50 + [40.0] * 10)] == ["", "missed"]
