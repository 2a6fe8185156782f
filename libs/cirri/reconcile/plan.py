"""The difference between what is wanted and what is there.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Plan(Generic[K, V]):
    """The fewest writes that turn one mapping into another."""

    put: Mapping[K, V] = field(default_factory=dict)
    """New and changed entries."""
    drop: frozenset[K] = frozenset()
    """Keys that go.  Where room is bounded, a target drops before it puts."""

    def __bool__(self) -> bool:
        return bool(self.put or self.drop)

    def __len__(self) -> int:
        return len(self.put) + len(self.drop)


def plan(desired: Mapping[K, V], realized: Mapping[K, V]) -> Plan[K, V]:
    """What turns *realized* into *desired*: depends on the two only, never on how they came about."""
    put = {k: v for k, v in desired.items() if k not in realized or realized[k] != v}
    return Plan(put, frozenset(k for k in realized if k not in desired))


def applied(realized: Mapping[K, V], changes: Plan[K, V]) -> dict[K, V]:
    """*realized* after *changes*."""
    return {**{k: v for k, v in realized.items() if k not in changes.drop}, **changes.put}
