"""Times as `hubble` reads and prints them: relative ones, dates, and Go's layouts by name.  Pure; UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from cirri.errors import CirriError

NS = 1_000_000_000
FORMATS = {
    "StampMilli": "Jan _2 15:04:05.000",
    "YearMonthDay": "2006-01-02",
    "YearMonthDayHour": "2006-01-02T15Z07:00",
    "YearMonthDayHourMinute": "2006-01-02T15:04Z07:00",
    "RFC3339": "2006-01-02T15:04:05Z07:00",
    "RFC3339Milli": "2006-01-02T15:04:05.999Z07:00",
    "RFC3339Micro": "2006-01-02T15:04:05.999999Z07:00",
    "RFC3339Nano": "2006-01-02T15:04:05.999999999Z07:00",
    "RFC1123Z": "Mon, 02 Jan 2006 15:04:05 -0700",
}
"""Names of ``--time-format`` and how the field writes them down."""
DEFAULT = "StampMilli"
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_UNITS_NS = {
    "ns": 1, "us": 1000, "µs": 1000, "μs": 1000, "ms": 1_000_000, "s": NS, "m": 60 * NS, "h": 3600 * NS,
}  # fmt: skip
_PART = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_DURATION = re.compile(rf"([+-]?)((?:{_PART})+)")
_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt](\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?([Zz]|[+-]\d\d:\d\d))?"
)
_RFC1123Z = re.compile(r"[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) ([+-]\d{4})")
_STAMP = re.compile(r"([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?")


class BadTime(CirriError):
    """The text is no time."""

    hint = "Give a duration back from now (90s, 5m, 1h30m) or a date (2026-01-31, 2026-01-31T12:00:00Z)"

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(f'cannot read "{text}" as a time')


def parse(text: str, now_ns: int) -> int:
    """Unix ns that *text* names; durations count back from *now_ns*.  Raises :class:`BadTime`."""
    if text == "0":
        return now_ns
    if relative := _DURATION.fullmatch(text):
        return now_ns + _length_ns(relative) if relative[1] == "-" else now_ns - _length_ns(relative)
    try:
        for pattern, read in ((_DATE, _date), (_RFC1123Z, _rfc1123z), (_STAMP, _stamp)):
            if found := pattern.fullmatch(text):
                when, fraction = read(found, now_ns)
                return int(when.timestamp()) * NS + int((fraction or "").ljust(9, "0"))
    except ValueError:
        pass
    raise BadTime(text)


def length_s(text: str) -> float:
    """Seconds that *text* (``5s``, ``1m30s``) lasts.  Raises :class:`BadTime`."""
    found = _DURATION.fullmatch(text)
    if not found or found[1] == "-":
        raise BadTime(text)
    return _length_ns(found) / NS


def _length_ns(found: re.Match[str]) -> int:
    return sum(round(float(number) * _UNITS_NS[unit]) for number, unit in re.findall(_PART, found[2]))


def _date(found: re.Match[str], _: int) -> tuple[datetime, str | None]:
    date, hour, minute, second, fraction, zone = found.groups()
    zone = "+00:00" if zone in (None, "Z", "z") else zone
    return datetime.fromisoformat(f"{date}T{hour or '00'}:{minute or '00'}:{second or '00'}{zone}"), fraction


def _rfc1123z(found: re.Match[str], _: int) -> tuple[datetime, str | None]:
    day, month, year, hour, minute, second, zone = found.groups()
    number = MONTHS.index(month) + 1
    iso = f"{year}-{number:02}-{day}T{hour}:{minute}:{second}{zone[:3]}:{zone[3:]}"
    return datetime.fromisoformat(iso), None


def _stamp(found: re.Match[str], now_ns: int) -> tuple[datetime, str | None]:
    """Of the year that makes it the latest time that is not yet to come."""
    month, day, hour, minute, second, fraction = found.groups()
    now = datetime.fromtimestamp(now_ns // NS, UTC)
    when = datetime(
        now.year, MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=UTC
    )
    return when.replace(year=now.year - 1) if when > now + timedelta(days=1) else when, fraction


def stamp(timestamp: Any, name: str = DEFAULT) -> str:
    """A ``google.protobuf.Timestamp`` in format *name* of :data:`FORMATS`; ``N/A`` if it is none."""
    if not 0 <= timestamp.nanos < NS:
        return "N/A"
    try:
        when, date, clock = _second(timestamp.seconds)
    except (ValueError, OverflowError, OSError):
        return "N/A"
    match name:
        case "YearMonthDay":
            return date
        case "YearMonthDayHour":
            return f"{date}T{when:%H}Z"
        case "YearMonthDayHourMinute":
            return f"{date}T{when:%H:%M}Z"
        case "RFC3339":
            return f"{date}T{clock}Z"
        case "RFC3339Milli" | "RFC3339Micro" | "RFC3339Nano":
            digits = {"RFC3339Milli": 3, "RFC3339Micro": 6}.get(name, 9)
            fraction = f"{timestamp.nanos:09}"[:digits].rstrip("0")
            return f"{date}T{clock}{'.' if fraction else ''}{fraction}Z"
        case "RFC1123Z":
            return f"{DAYS[when.weekday()]}, {when.day:02} {MONTHS[when.month - 1]} {when.year} {clock} +0000"
    return f"{MONTHS[when.month - 1]} {when.day:2} {clock}.{timestamp.nanos // 1_000_000:03}"


@lru_cache(maxsize=256)
def _second(seconds: int) -> tuple[datetime, str, str]:
    """A Unix time, its date and its clock; flows come many in a second."""
    when = datetime.fromtimestamp(seconds, UTC)
    return when, f"{when:%Y-%m-%d}", f"{when:%H:%M:%S}"


def duration(ns: int) -> str:
    """A length of time as Go writes it: ``1m40s``, ``2h46m40s``, ``1.5ms``."""
    if ns < 1000 or ns >= 1 << 63:
        return f"{ns}ns" if ns else "0s"
    for unit, size in (("µs", 1000), ("ms", 1_000_000)):
        if ns < size * 1000:
            return f"{_decimal(ns, size)}{unit}"
    minutes, rest = divmod(ns, 60 * NS)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, NS)}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


def _decimal(number: int, size: int) -> str:
    whole, rest = divmod(number, size)
    fraction = str(rest).zfill(len(str(size)) - 1).rstrip("0") if rest else ""
    return f"{whole}.{fraction}" if fraction else str(whole)
