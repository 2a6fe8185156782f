"""What the configuration says about requests that go through the proxy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from cirri.errors import CirriError

S = 1_000_000_000
LONGEST_S = 315_576_000
"""Ten years: what Envoy takes as a time, with room to spare."""

SECONDS: Mapping[str, str] = {
    "http-request-timeout": "request_timeout",
    "http-idle-timeout": "idle_timeout",
    "http-stream-idle-timeout": "stream_idle_timeout",
    "http-max-grpc-timeout": "max_grpc_timeout",
    "proxy-connect-timeout": "connect_timeout",
}
"""Keys whose value is a whole number of seconds."""
NORMALIZE = "http-normalize-path"


class HttpSettings(Struct, frozen=True, kw_only=True):
    """Times in nanoseconds; 0: without end."""

    request_timeout: int = 3600 * S
    """A whole request and its answer."""
    idle_timeout: int = 0
    """A connection without requests."""
    stream_idle_timeout: int = 300 * S
    """A request in which nothing moves."""
    max_grpc_timeout: int = 0
    """The most that a client's ``grpc-timeout`` may ask for."""
    connect_timeout: int = 2 * S
    """Until the server has accepted."""
    normalize_path: bool = True
    """Decide on, and go on with, paths in their shortest form."""


class InvalidHttp(CirriError):
    """A key of the configuration cannot be used; its default holds."""

    def __init__(self, key: str, value: str, allowed: str) -> None:
        self.key, self.value, self.allowed = key, value, allowed
        super().__init__(f"cirri-config: {key}: {value!r} is not allowed; allowed: {allowed}")


def http_settings(data: Mapping[str, str]) -> tuple[HttpSettings, list[InvalidHttp]]:
    """The settings in *data*, defaults for what cannot be read; and what that is."""
    values: dict[str, Any] = {}
    wrong = []
    for key in (*SECONDS, NORMALIZE):
        if text := data.get(key, ""):
            try:
                values[SECONDS.get(key, "normalize_path")] = _read(key, text)
            except InvalidHttp as error:
                wrong.append(error)
    return HttpSettings(**values), wrong


def complaint(key: str) -> Callable[[str], str]:
    """What is wrong with a value of *key*, "" if nothing: for whoever checks the configuration."""

    def says(value: str) -> str:
        _, wrong = http_settings({key: value})
        return f"{value!r} is not allowed; allowed: {wrong[0].allowed}" if wrong else ""

    return says


def _read(key: str, text: str) -> int | bool:
    if key == NORMALIZE:
        if text not in ("true", "false"):
            raise InvalidHttp(key, text, "true, false")
        return text == "true"
    least = 1 if key == "proxy-connect-timeout" else 0
    if not (text.isascii() and text.isdecimal() and least <= int(text) <= LONGEST_S):
        raise InvalidHttp(key, text, f"a number of seconds from {least}")
    return int(text) * S
