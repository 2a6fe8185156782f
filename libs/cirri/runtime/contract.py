"""A service's contract as data: NATS permissions, the chart, the README tables and the
architecture test are all derived from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from cirri.model.bucket import Bucket
from cirri.model.flows import Log


class Companion(NamedTuple):
    """A program that runs beside each process of a service, without the bus."""

    name: str
    command: tuple[str, ...]
    capabilities: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Service:
    """What a service reads, writes, tells and needs."""

    name: str
    """Package ``cirri.NAME``, script ``cirri-NAME``, metric prefix ``cirri_NAME_``."""
    summary: str
    """One sentence: what holds while it runs."""
    scope: Literal["cluster", "node"]
    """How many run: one per cluster (others stand by), or one per node."""
    replicas: int = 1
    """Processes of it on each node, where scope is node: either is enough while the other is replaced."""
    reads: tuple[Bucket[Any], ...] = ()
    writes: tuple[Bucket[Any], ...] = ()
    maps: tuple[str, ...] = ()
    """Pinned BPF maps that it alone writes from user space."""
    serves: tuple[str, ...] = ()
    """Request subjects below ``cirri.NAME.`` that it answers (NODE is put first where scope is node)."""
    calls: tuple[str, ...] = ()
    """Request subjects of other services that it uses, e.g. ``cirri.kubernetes.apply``; ``{node}`` in one
    stands for its own node."""
    tells: tuple[str, ...] = ()
    """What it tells whoever listens, without an answer: ``l7`` is subject ``cirri.l7.NODE``."""
    hears: tuple[str, ...] = ()
    """What it hears of what others tell: of its own node where scope is node, else of every one."""
    appends: tuple[Log, ...] = ()
    """Logs that it makes and appends to; where scope is node, below subjects that end with its node."""
    replays: tuple[Log, ...] = ()
    """Logs that it reads."""
    capabilities: tuple[str, ...] = ()
    """Linux capabilities without CAP_; empty: runs unprivileged."""
    companions: tuple[Companion, ...] = ()
