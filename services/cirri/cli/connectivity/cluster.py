"""What a run needs of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import NamedTuple, Protocol

from cirri.cli.connectivity.actions import Action, Place
from cirri.cli.connectivity.manifests import Manifest
from cirri.errors import CirriError


class NotEnough(CirriError):
    """The cluster cannot run the tests."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the tests cannot run: {why}")


class NoAnswer(CirriError):
    """What was run somewhere did not end."""

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"commands in {place} did not end: {why}")


class Found(NamedTuple):
    """Where things are, once workloads run."""

    places: dict[str, Place]
    node_ports: dict[str, int]


class Cluster(Protocol):
    """One that tests are run against.  Every method raises :class:`CirriError`."""

    name: str
    sites: tuple[str, str]
    """Two names outside, unless the caller knows others."""
    images: tuple[str, str]
    """With curl and ping in it; one that answers HTTP on ``$PORT``."""

    async def nodes(self) -> list[str]:
        """Names of nodes that take pods."""
        ...

    async def replace(self, gone: Sequence[Manifest], wanted: Sequence[Manifest]) -> None:
        """*wanted* are there, *gone* are not, and what nodes do is so, when this returns.  Absent is fine."""
        ...

    async def find(self, namespaces: Sequence[str]) -> Found:
        """Pods of *namespaces* by their label ``name``, machines, ports of Services of the first."""
        ...

    async def run(self, place: Place, script: str, within_s: float) -> str:
        """What *script* (shell) prints there.  Raises: NoAnswer."""
        ...

    async def flows(self, action: Action, since: str) -> str:
        """The command that shows flows of *action* since then (RFC 3339), and what it says; or ""."""
        ...

    async def remove(self, namespaces: Sequence[str]) -> None:
        """They are gone, with what was in them."""
        ...


def common_prefix(one: str, other: str) -> str:
    """The longest prefix that holds both addresses, which are of one family."""
    first, second = ip_address(one), ip_address(other)
    length = first.max_prefixlen - (int(first) ^ int(second)).bit_length()
    return str(ip_network((int(first) if first.version == 4 else first, length), strict=False))
