"""Services that a cluster may do without: a key of its configuration says so when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Part(NamedTuple):
    """What one key stands for."""

    key: str
    """In ``cirri-config``; "false" leaves the part out."""
    services: tuple[str, ...]


PARTS = {
    "bgp": Part("enable-bgp-control-plane", ("bgp",)),
    "flows": Part("enable-hubble", ("flows", "relay")),
    "l2": Part("enable-l2-announcements", ("l2",)),
    "sensor": Part("enable-sensor", ("sensor",)),
}
"""By the name that ``cirri lab up --without`` takes; a service that does not exist is no fault."""


def without(names: tuple[str, ...]) -> dict[str, str]:
    """The configuration that leaves out the parts *names*."""
    return {PARTS[name].key: "false" for name in names}


def left_out(data: Mapping[str, str]) -> frozenset[str]:
    """Services that are not started where the configuration is *data*."""
    return frozenset(s for part in PARTS.values() if data.get(part.key) == "false" for s in part.services)
