"""Nodes that answer for addresses of Services on their segment, and how one knows that they live."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from msgspec import Struct

from cirri.errors import CirriError
from cirri.model.bucket import Bucket, token

ENABLE = "enable-l2-announcements"
DURATION, RENEW, RETRY = (
    f"l2-announcements-{name}" for name in ("lease-duration", "renew-deadline", "retry-period")
)
DEFAULTS = {ENABLE: "true", DURATION: "300ms", RENEW: "200ms", RETRY: "100ms"}
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}


class Announcer(Struct, frozen=True, kw_only=True):
    """A node that may hold addresses of Services; a new *beat* says that it lives."""

    node: str
    beat: int = 0
    """Counts: it is written again and again, however many addresses there are."""
    drained: bool = False
    """A person wants it to hold nothing that another node can hold."""
    mac: str = ""
    """Of its device to other nodes, from which it announces."""
    devices: tuple[str, ...] = ()
    """On which it can answer."""
    claims: dict[str, int] = {}
    """Address -> number: a person moved it here; of several nodes the largest number counts."""
    leave_s: float = 0.0
    """It counts as living for so long without a beat: its process is being replaced, its kernel answers."""


class InvalidL2(CirriError):
    """A key of the configuration cannot be used; the last good value goes on to hold."""

    def __init__(self, key: str, value: str, allowed: str) -> None:
        self.key, self.value = key, value
        super().__init__(f"cirri-config: {key}: {value!r} is not allowed; allowed: {allowed}")


@dataclass(frozen=True, slots=True)
class L2Config:
    """How nodes find out that one of them is gone."""

    enabled: bool = True
    duration_s: float = 0.3
    """After so long without a beat of a node others take over."""
    renew_s: float = 0.2
    """After so long without hearing its own beats a node knows that it does not see."""
    retry_s: float = 0.1
    """Between two beats."""

    @classmethod
    def of(cls, data: Mapping[str, str]) -> L2Config:
        """From the ConfigMap's data.  Raises InvalidL2."""
        enabled = data.get(ENABLE) or "true"
        if enabled not in ("true", "false"):
            raise InvalidL2(ENABLE, enabled, "true, false")
        found = {key: _seconds(key, data.get(key) or DEFAULTS[key]) for key in (DURATION, RENEW, RETRY)}
        for longer, shorter in ((DURATION, RENEW), (RENEW, RETRY)):
            if found[longer] <= found[shorter]:
                given = data.get(longer) or DEFAULTS[longer]
                raise InvalidL2(longer, given, f"longer than {shorter} ({found[shorter]:g}s)")
        return cls(enabled == "true", found[DURATION], found[RENEW], found[RETRY])


def complaint(key: str) -> Callable[[str], str]:
    """What is wrong with a value of *key*, "" if nothing: for whoever checks the configuration."""

    def says(value: str) -> str:
        try:
            if key == ENABLE:
                L2Config.of({key: value})
            else:
                _seconds(key, value)
        except InvalidL2 as error:
            return str(error).removeprefix(f"cirri-config: {key}: ")
        return ""

    return says


def _seconds(key: str, text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s|m)", text)
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0.02 <= seconds <= 3600:
        raise InvalidL2(key, text, 'a time from 20ms to 60m, as in "300ms"')
    return seconds


ANNOUNCERS = Bucket("announcers", Announcer, lambda a: token(a.node), writer="l2", shard="node", history=1)
