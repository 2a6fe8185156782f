"""The configuration's keys ``http-*`` and ``proxy-*``, as far as they are about Envoy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

S = 1_000_000_000


class HttpSettings(Struct, frozen=True, kw_only=True):
    """Times in nanoseconds; 0: without end."""

    request_timeout: int = 3600 * S
    """``http-request-timeout``: a whole request and its answer."""
    idle_timeout: int = 0
    """``http-idle-timeout``: a connection without requests."""
    stream_idle_timeout: int = 300 * S
    """``http-stream-idle-timeout``: a request in which nothing moves."""
    max_grpc_timeout: int = 0
    """``http-max-grpc-timeout``: the most that a client's ``grpc-timeout`` may ask for; 0: as requests."""
    connect_timeout: int = 2 * S
    """``proxy-connect-timeout``: until the server has accepted."""
    normalize_path: bool = True
    """``http-normalize-path``: decide on, and go on with, paths in their shortest form."""


KEYS: Mapping[str, str] = {
    "http-request-timeout": "request_timeout",
    "http-idle-timeout": "idle_timeout",
    "http-stream-idle-timeout": "stream_idle_timeout",
    "http-max-grpc-timeout": "max_grpc_timeout",
    "proxy-connect-timeout": "connect_timeout",
}
"""Whole seconds each."""
NORMALIZE = "http-normalize-path"


def read(data: Mapping[str, str]) -> tuple[HttpSettings, list[str]]:
    """The settings in *data*, defaults for what cannot be read; and sentences about that."""
    values: dict[str, Any] = {}
    problems = []
    for key, field in KEYS.items():
        if text := data.get(key, ""):
            if text.isascii() and text.isdecimal() and int(text) <= 315_576_000:
                values[field] = int(text) * S
            else:
                problems.append(f"cirri-config: {key}: {text!r} is not a number of seconds")
    if text := data.get(NORMALIZE, ""):
        if text in ("true", "false"):
            values["normalize_path"] = text == "true"
        else:
            problems.append(f"cirri-config: {NORMALIZE}: {text!r} is not true or false")
    if values.get("connect_timeout") == 0:
        del values["connect_timeout"]
        problems.append("cirri-config: proxy-connect-timeout: must be at least 1")
    return HttpSettings(**values), problems
