"""How much the maps hold and how often they are swept, by the cluster's configuration.  Pure.

Keys are called as Cilium calls them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cirri.errors import CirriError
from cirri.layout.conntrack import CT
from cirri.layout.lb import LB_ALIVE, LB_BACKENDS, LB_FRONTENDS, LB_RANGES, LB_SERVICES
from cirri.layout.nat import NAT

LB_MAX, CT_TCP_MAX, CT_ANY_MAX = "bpf-lb-map-max", "bpf-ct-global-tcp-max", "bpf-ct-global-any-max"
NAT_MAX, SWEEP = "bpf-nat-global-max", "conntrack-gc-interval"
DEFAULTS = {
    LB_MAX: str(LB_SERVICES.max_entries),
    CT_TCP_MAX: str(CT.max_entries // 2),
    CT_ANY_MAX: str(CT.max_entries // 2),
    NAT_MAX: str(NAT.max_entries),
    SWEEP: "30s",
}
SIZES = range(1 << 10, (1 << 24) + 1)
"""What any of the sizes may be."""
BACKENDS = 4
"""For each frontend that there is room for."""
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
LEAST_S, SWEEP_S = 1.0, 30.0


class InvalidLimits(CirriError):
    """A key of the cluster's configuration has a value that means nothing."""

    def __init__(self, key: str, value: str, allowed: str) -> None:
        self.key, self.value = key, value
        super().__init__(f"cirri-config: {key}: {value!r} is not allowed; allowed: {allowed}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the configuration says."""

    frontends: int = LB_SERVICES.max_entries
    connections: int = CT.max_entries
    """Of TCP and of all other protocols, in one map."""
    translations: int = NAT.max_entries
    sweep_s: float = SWEEP_S
    """How often connections that are over are removed."""

    @classmethod
    def of(cls, data: Mapping[str, str]) -> Limits:
        """From the ConfigMap's data.  Raises InvalidLimits."""
        return cls(
            _size(data, LB_MAX),
            _size(data, CT_TCP_MAX) + _size(data, CT_ANY_MAX),
            _size(data, NAT_MAX),
            _seconds(data, SWEEP),
        )

    @property
    def entries(self) -> dict[str, int]:
        """Entries of each map that this speaks of, by its name."""
        return {
            **{spec.name: self.frontends for spec in (LB_SERVICES, LB_FRONTENDS, LB_RANGES)},
            **{spec.name: BACKENDS * self.frontends for spec in (LB_BACKENDS, LB_ALIVE)},
            CT.name: self.connections,
            NAT.name: self.translations,
        }


def complaint(key: str) -> Callable[[str], str]:
    """What is wrong with a value of *key*, "" if nothing: for whoever checks the configuration."""

    def says(value: str) -> str:
        try:
            Limits.of({key: value})
        except InvalidLimits as error:
            return str(error).removeprefix(f"cirri-config: {key}: ")
        return ""

    return says


def duration_s(text: str) -> float | None:
    """Seconds of a duration such as ``1m30s``; None: it is none."""
    parts = re.findall(r"(\d+)(ms|s|m|h)", text)
    if "".join(map("".join, parts)) != text:
        return None
    return sum((int(number) * UNITS[unit] for number, unit in parts), 0.0)


def _size(data: Mapping[str, str], key: str) -> int:
    text = data.get(key) or DEFAULTS[key]
    if not (text.isascii() and text.isdecimal() and int(text) in SIZES):
        raise InvalidLimits(key, text, f"a number from {SIZES.start} to {SIZES.stop - 1}")
    return int(text)


def _seconds(data: Mapping[str, str], key: str) -> float:
    """Of a duration such as ``1m30s``; ``0s`` leaves it to us, as with Cilium."""
    text = data.get(key) or DEFAULTS[key]
    seconds = duration_s(text)
    if seconds is None or 0 < seconds < LEAST_S:
        raise InvalidLimits(key, text, 'a duration of a second or more, as in "30s" or "1m30s", or "0s"')
    return seconds or SWEEP_S
