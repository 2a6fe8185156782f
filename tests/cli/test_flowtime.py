"""Times as the field reads and writes them."""

import pytest

from cirri.cli.flowtime import BadTime, duration, length_s, parse, stamp
from cirri.hubble.messages import Timestamp

NS = 10**9
NOW = 1_772_000_000 * NS  # 2026-02-25T06:13:20Z

TIMES = [
    ("0", NOW),
    ("3s", NOW - 3 * NS),
    ("1h43m", NOW - (3600 + 43 * 60) * NS),
    ("1.5h", NOW - 5400 * NS),
    ("-5m", NOW + 300 * NS),
    ("100ms", NOW - NS // 10),
    ("2026-01-02", 1767312000 * NS),
    ("2026-01-02T03Z", 1767322800 * NS),
    ("2026-01-02T03:04Z", 1767323040 * NS),
    ("2026-01-02T03:04:05Z", 1767323045 * NS),
    ("2026-01-02T03:04:05+02:00", 1767315845 * NS),
    ("2026-01-02T03:04:05.123456789Z", 1767323045123456789),
    ("2026-01-02T03:04:05.5Z", 1767323045500000000),
    ("Fri, 02 Jan 2026 03:04:05 +0000", 1767323045 * NS),
    ("Jan  2 03:04:05.250", 1767323045250000000),
    ("Apr  5 21:03:13.283", 1743886993283000000),  # of last year: this year's is yet to come
]


@pytest.mark.parametrize(("text", "expected"), TIMES)
def test_parse(text: str, expected: int) -> None:
    assert parse(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "5", "5x", "yesterday", "2026-13-01", "2026-01-02T25Z", "Foo  1 0:0"])
def test_no_time(text: str) -> None:
    with pytest.raises(BadTime, match="as a time"):
        parse(text, NOW)


FORMS = [
    ("StampMilli", "Apr  5 21:03:13.283"),
    ("YearMonthDay", "2025-04-05"),
    ("YearMonthDayHour", "2025-04-05T21Z"),
    ("YearMonthDayHourMinute", "2025-04-05T21:03Z"),
    ("RFC3339", "2025-04-05T21:03:13Z"),
    ("RFC3339Milli", "2025-04-05T21:03:13.283Z"),
    ("RFC3339Micro", "2025-04-05T21:03:13.2839Z"),
    ("RFC3339Nano", "2025-04-05T21:03:13.283900001Z"),
    ("RFC1123Z", "Sat, 05 Apr 2025 21:03:13 +0000"),
]


@pytest.mark.parametrize(("name", "expected"), FORMS)
def test_stamp(name: str, expected: str) -> None:
    assert stamp(Timestamp(seconds=1743886993, nanos=283_900_001), name) == expected


def test_stamp_of_nonsense() -> None:
    assert stamp(Timestamp(seconds=-1, nanos=-1)) == "N/A"
    assert stamp(Timestamp(seconds=1 << 60)) == "N/A"


LENGTHS = [
    (0, "0s"), (1, "1ns"), (1000, "1µs"), (1500, "1.5µs"), (10**8, "100ms"), (10**9, "1s"), (10**11, "1m40s"),
    (10**13, "2h46m40s"), (10**14, "27h46m40s"), ((1 << 63) - 1, "2562047h47m16.854775807s"),
    (1 << 63, "9223372036854775808ns"),
]  # fmt: skip


@pytest.mark.parametrize(("ns", "expected"), LENGTHS)
def test_duration(ns: int, expected: str) -> None:
    assert duration(ns) == expected


def test_length() -> None:
    assert length_s("1m30s") == 90
    with pytest.raises(BadTime):
        length_s("-1s")
