"""How often observers are told of packets that pass, by the cluster's configuration.  Pure.

Keys and levels are called as Cilium calls them; what each level tells stands in bpf/README.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from cirri.layout.conntrack import TICK_BITS
from cirri.layout.limits import InvalidLimits, duration_s
from cirri.layout.runtime import RuntimeFlag

LEVEL, INTERVAL, FLAGS = "monitor-aggregation", "monitor-aggregation-interval", "monitor-aggregation-flags"
DEFAULTS = {LEVEL: "medium", INTERVAL: "5s", FLAGS: "syn fin rst"}
Level = Literal["none", "low", "medium", "maximum"]
LEVELS: Mapping[str, Level] = {
    "none": "none",
    "disabled": "none",
    "lowest": "low",
    "low": "low",
    "medium": "medium",
    "max": "maximum",
    "maximum": "maximum",
}
TCP_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr")
"""By bit, RFC 9293 section 3.1."""
WORDS = {**{name: 1 << bit for bit, name in enumerate(TCP_FLAGS)}, "all": 0xFF, "none": 0}
LEAST_S, MOST_S = 0.01, 86400.0


@dataclass(frozen=True, slots=True)
class Tracing:
    """What the configuration says."""

    level: Level = "medium"
    interval_s: float = 5.0
    """Of a connection in each direction."""
    tcp_flags: int = WORDS["syn"] | WORDS["fin"] | WORDS["rst"]
    """Of which it is told at once when they are first seen in a direction."""

    @classmethod
    def of(cls, data: Mapping[str, str]) -> Tracing:
        """From the ConfigMap's data.  Raises InvalidLimits."""
        text = data.get(LEVEL) or DEFAULTS[LEVEL]
        if text.lower() not in LEVELS:
            raise InvalidLimits(LEVEL, text, "none, low, medium or maximum")
        return cls(LEVELS[text.lower()], _interval(data), _flags(data))

    @property
    def switches(self) -> RuntimeFlag:
        """Those of ``cirri_runtime`` that are on."""
        each = RuntimeFlag.TRACE_EACH if self.level in ("none", "low") else RuntimeFlag(0)
        return each | RuntimeFlag.TRACE_FROM if self.level == "none" else each

    @property
    def ticks(self) -> int:
        """The interval, for ``cirri_runtime``."""
        return round(self.interval_s * 1e9) >> TICK_BITS


def complaint(key: str) -> Callable[[str], str]:
    """What is wrong with a value of *key*, "" if nothing: for whoever checks the configuration."""

    def says(value: str) -> str:
        try:
            Tracing.of({key: value})
        except InvalidLimits as error:
            return str(error).removeprefix(f"cirri-config: {key}: ")
        return ""

    return says


def _interval(data: Mapping[str, str]) -> float:
    text = data.get(INTERVAL) or DEFAULTS[INTERVAL]
    seconds = duration_s(text)
    if seconds is None or not LEAST_S <= seconds <= MOST_S:
        raise InvalidLimits(INTERVAL, text, 'a duration from "10ms" to "24h", as in "5s" or "1m30s"')
    return seconds


def _flags(data: Mapping[str, str]) -> int:
    text = data.get(FLAGS) or DEFAULTS[FLAGS]
    words = [word for word in re.split(r"[\s,]+", text.lower()) if word]
    if unknown := [word for word in words if word not in WORDS]:
        raise InvalidLimits(FLAGS, unknown[0], f"{', '.join(TCP_FLAGS)}, all or none, separated by blanks")
    found = 0
    for word in words:
        found |= WORDS[word]
    return found
