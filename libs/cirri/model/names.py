"""What the configuration says about names that pods ask for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from cirri.errors import CirriError

MIN_TTL, PER_NAME = "tofqdns-min-ttl", "tofqdns-endpoint-max-ip-per-hostname"
ZOMBIES, GRACE = "tofqdns-max-deferred-connection-deletes", "tofqdns-idle-connection-grace-period"
DELAY, REFUSAL = "tofqdns-proxy-response-max-delay", "tofqdns-dns-reject-response-code"
REFUSALS = ("refused", "nameError")
_FIELDS = {
    MIN_TTL: "min_ttl_s",
    PER_NAME: "per_name",
    ZOMBIES: "zombies",
    GRACE: "grace_s",
    DELAY: "delay_s",
    REFUSAL: "refusal",
}
DEFAULTS = {MIN_TTL: "0", PER_NAME: "1000", ZOMBIES: "10000", GRACE: "0s", DELAY: "100ms", REFUSAL: "refused"}
"""Key -> what holds where it is not given."""
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d{1,9})(ms|s|m|h)", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


class NameSettings(Struct, frozen=True, kw_only=True):
    """Times in seconds."""

    min_ttl_s: int = 0
    """An address holds at least so long, whatever its server says."""
    per_name: int = 1000
    """Addresses that a pod may hold of one name."""
    zombies: int = 10000
    """Addresses of a pod that stay after their time because connections to them live."""
    grace_s: float = 0.0
    """How much longer an address stays than its time."""
    delay_s: float = 0.1
    """How long an answer may wait for the kernel to know its addresses."""
    refusal: str = "refused"
    """What is answered where no rule lets a name pass: REFUSED, or that there is no such name."""


class InvalidNames(CirriError):
    """A key of the configuration cannot be used; its default holds."""

    def __init__(self, key: str, value: str, allowed: str) -> None:
        self.key, self.value, self.allowed = key, value, allowed
        super().__init__(f"cirri-config: {key}: {value!r} is not allowed; allowed: {allowed}")


def name_settings(data: Mapping[str, str]) -> tuple[NameSettings, list[InvalidNames]]:
    """The settings in *data*, defaults for what cannot be read; and what that is."""
    values: dict[str, Any] = {}
    wrong = []
    for key, field in _FIELDS.items():
        if text := data.get(key, ""):
            try:
                values[field] = _read(key, text)
            except InvalidNames as error:
                wrong.append(error)
    return NameSettings(**values), wrong


def complaint(key: str) -> Callable[[str], str]:
    """What is wrong with a value of *key*, "" if nothing: for whoever checks the configuration."""

    def says(value: str) -> str:
        _, wrong = name_settings({key: value})
        return f"{value!r} is not allowed; allowed: {wrong[0].allowed}" if wrong else ""

    return says


def _read(key: str, text: str) -> int | float | str:
    if key == REFUSAL:
        if text not in REFUSALS:
            raise InvalidNames(key, text, ", ".join(REFUSALS))
        return text
    if key in (GRACE, DELAY):
        if (found := _DURATION.fullmatch(text)) is None:
            raise InvalidNames(key, text, 'a duration such as "100ms" or "30s"')
        return int(found[1]) * _UNITS[found[2]]
    least = 1 if key == PER_NAME else 0
    if not _NUMBER.fullmatch(text) or int(text) < least:
        raise InvalidNames(key, text, f"a whole number from {least}")
    return int(text)
