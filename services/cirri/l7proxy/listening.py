"""Which of the wanted listeners serve: as the kernel has them, and Envoy says that it took them.  Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from cirri.l7proxy.listeners import ADDRESSES
from cirri.l7proxy.resources import Wanted
from cirri.l7proxy.session import Session, serves


class Report(NamedTuple):
    """What the datapath service is told."""

    ports: frozenset[int] = frozenset()
    failed: tuple[tuple[int, str], ...] = ()


def report(
    wanted: Wanted,
    sessions: Iterable[Session],
    listening: Collection[tuple[str, int]],
    before: Report,
    *,
    ipv6: bool,
) -> Report:
    """Ports that serve.  Without any session Envoy may still live: what served before does if it listens."""
    asked = tuple(sessions)
    addresses = ADDRESSES if ipv6 else ADDRESSES[:1]
    ports = set()
    for port in wanted.ports - wanted.refused.keys():
        taken = any(serves(one, wanted, port) for one in asked) if asked else port in before.ports
        if taken and all((address, port) in listening for address in addresses):
            ports.add(port)
    return Report(frozenset(ports), tuple(sorted(wanted.refused.items())))
