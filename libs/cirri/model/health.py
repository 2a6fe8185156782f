"""Who reaches whom: what the nodes' probes of each other found."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from cirri.errors import CirriError
from cirri.model.bucket import Bucket, token

Probe = Literal["icmp", "http"]
Reach = Literal["unknown", "reachable", "unreachable"]

ENABLE, PORT, INTERVAL = "enable-health-checking", "cluster-health-port", "cluster-health-interval"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}


class PathHealth(Struct, frozen=True, kw_only=True):
    """One way to a node: an address of it, and what it was asked by."""

    address: str
    probe: Probe
    state: Reach = "unknown"
    since: str = ""
    """RFC 3339, UTC: since when it answers, or the first time that it did not."""
    rtt_s: float = 0.0
    """Of the last answer, in seconds."""
    error: str = ""
    """What came in place of the last answer; empty: it came."""


class PeerHealth(Struct, frozen=True, kw_only=True):
    """One other node, as *paths* to it were found."""

    node: str
    paths: tuple[PathHealth, ...] = ()

    @property
    def state(self) -> Reach:
        """``unreachable`` if any path is: whoever takes that one does not get there."""
        states = {path.state for path in self.paths}
        return (
            "unreachable"
            if "unreachable" in states
            else "reachable"
            if states == {"reachable"}
            else "unknown"
        )


class NodeHealth(Struct, frozen=True, kw_only=True):
    """What *node* sees of the others; no service reads it, people do."""

    node: str
    peers: tuple[PeerHealth, ...] = ()
    probed: str = ""
    """RFC 3339, UTC: the last probe in it; empty: there was none yet."""
    interval_s: float = 10.0
    """How often it asks each node, and about how often it tells new round-trip times."""
    enabled: bool = True
    error: str = ""
    """Why it does not answer others; empty: it does."""


class InvalidHealth(CirriError):
    """A key of the configuration cannot be used; the last good value goes on to hold."""

    def __init__(self, key: str, value: str, allowed: str) -> None:
        self.key, self.value = key, value
        super().__init__(f"cirri-config: {key}: {value!r} is not allowed; allowed: {allowed}")


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """How nodes probe each other."""

    enabled: bool = True
    port: int = 4240
    """TCP port on which each node answers."""
    interval_s: float = 10.0
    """Between two probes of one node; larger where there are many (see the service)."""

    @classmethod
    def of(cls, data: Mapping[str, str]) -> HealthConfig:
        """From the ConfigMap's data.  Raises InvalidHealth."""
        enabled = data.get(ENABLE) or "true"
        if enabled not in ("true", "false"):
            raise InvalidHealth(ENABLE, enabled, "true, false")
        port = data.get(PORT) or "4240"
        if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
            raise InvalidHealth(PORT, port, "a port from 1 to 65535")
        return cls(enabled == "true", int(port), _seconds(data.get(INTERVAL) or "10s"))


def complaint(key: str) -> Callable[[str], str]:
    """What is wrong with a value of *key*, "" if nothing: for whoever checks the configuration."""

    def says(value: str) -> str:
        try:
            HealthConfig.of({key: value})
        except InvalidHealth as error:
            return str(error).removeprefix(f"cirri-config: {key}: ")
        return ""

    return says


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s|m)", text)
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0.1 <= seconds <= 3600:
        raise InvalidHealth(INTERVAL, text, 'a time from 100ms to 60m, as in "10s"')
    return seconds


HEALTH = Bucket(
    "health", NodeHealth, lambda h: token(h.node), writer="health", shard="node", history=1, packed=True
)
