"""What the configuration says about keeping flows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cirri.errors import CirriError

BUFFER = "hubble-event-buffer-capacity"
FORWARDED_AGE, FORWARDED_BYTES = "flowlog-forwarded-max-age", "flowlog-forwarded-max-bytes"
DROPPED_AGE, DROPPED_BYTES = "flowlog-dropped-max-age", "flowlog-dropped-max-bytes"
DEFAULTS = {
    BUFFER: "4095",
    FORWARDED_AGE: "24h",
    FORWARDED_BYTES: "1Gi",
    DROPPED_AGE: "7d",
    DROPPED_BYTES: "256Mi",
}
"""A row takes some 15 bytes: a gigabyte holds 70 million."""
LARGEST_BUFFER = (1 << 20) - 1

_DURATION = re.compile(r"(\d{1,6})(s|m|h|d)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"(\d{1,6})(Ki|Mi|Gi|Ti)", re.ASCII)
_BYTES = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


class InvalidFlows(CirriError):
    """A key of the configuration cannot be used; its default holds."""

    def __init__(self, key: str, value: str, allowed: str) -> None:
        self.key, self.value, self.allowed = key, value, allowed
        super().__init__(f"cirri-config: {key}: {value!r} is not allowed; allowed: {allowed}")


@dataclass(frozen=True, kw_only=True)
class FlowSettings:
    """Ages in seconds."""

    capacity: int
    """Rows that each node holds in memory, 2^n - 1."""
    forwarded_age_s: int
    forwarded_bytes: int
    dropped_age_s: int
    dropped_bytes: int


def flow_settings(data: Mapping[str, str]) -> tuple[FlowSettings, list[InvalidFlows]]:
    """The settings in *data*, defaults for what cannot be read; and what that is."""
    wrong: list[InvalidFlows] = []

    def value(key: str) -> int:
        try:
            return _read(key, data.get(key) or DEFAULTS[key])
        except InvalidFlows as error:
            wrong.append(error)
            return _read(key, DEFAULTS[key])

    found = FlowSettings(
        capacity=value(BUFFER),
        forwarded_age_s=value(FORWARDED_AGE),
        forwarded_bytes=value(FORWARDED_BYTES),
        dropped_age_s=value(DROPPED_AGE),
        dropped_bytes=value(DROPPED_BYTES),
    )
    return found, wrong


def complaint(key: str) -> Callable[[str], str]:
    """What is wrong with a value of *key*, "" if nothing: for whoever checks the configuration."""

    def says(value: str) -> str:
        _, wrong = flow_settings({key: value})
        return f"{value!r} is not allowed; allowed: {wrong[0].allowed}" if wrong else ""

    return says


def _read(key: str, text: str) -> int:
    if key == BUFFER:
        capacity = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        if not 0 < capacity <= LARGEST_BUFFER or capacity & (capacity + 1):
            raise InvalidFlows(key, text, f"one less than a power of two, up to {LARGEST_BUFFER}")
        return capacity
    if key in (FORWARDED_AGE, DROPPED_AGE):
        if (found := _DURATION.fullmatch(text)) is None or not int(found[1]):
            raise InvalidFlows(key, text, 'a duration such as "90m", "24h" or "7d"')
        return int(found[1]) * _SECONDS[found[2]]
    if (found := _SIZE.fullmatch(text)) is None or not int(found[1]):
        raise InvalidFlows(key, text, 'a size such as "256Mi" or "1Gi"')
    return int(found[1]) * _BYTES[found[2]]
