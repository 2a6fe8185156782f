"""Where an observer has its flows from, and how it follows them without holding anybody up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from cirri.history import Table

FOLLOWER_ROWS = 65_536
"""Rows that wait for a client that follows; it misses what is older, and is told how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """What ``ServerStatus`` tells."""

    num: int
    """Flows held now."""
    max: int
    seen: int
    """Since the start."""
    uptime_ns: int
    flows_rate: float
    """Per second, over the last minute."""
    version: str
    lost: Mapping[str, int] = field(default_factory=dict)
    """By cause, since the start: those of :attr:`cirri.model.flows.FlowBatch.lost`."""


class AgentEvent(NamedTuple):
    """Something that happened to the node itself."""

    time_ns: int
    event: Any
    """A ``flow.AgentEvent``."""


class Source(Protocol):
    """The flows of a node."""

    def tables(self, *, newest_first: bool = False) -> AsyncIterator[Table]:
        """What is held when it is called, table by table; the rows within each are oldest first."""

    def follow(self) -> Follower:
        """What comes after the call."""

    def status(self) -> SourceStatus:
        """As of now."""

    def namespaces(self) -> Sequence[tuple[str, str]]:
        """(cluster, namespace) of pods that had flows in the last hour."""

    def events(self) -> Sequence[AgentEvent]:
        """Of the node, oldest first."""

    def follow_events(self) -> Follower:
        """What comes after the call."""


class Follower:
    """What came since somebody began to follow, in pieces: iterate, and close it when done."""

    def __init__(self, followers: set[Follower], limit: int) -> None:
        self.lost = 0
        """Entries that were given up because they were not fetched in time."""
        self._followers, self._limit = followers, limit
        self._waiting: deque[Any] = deque()
        self._count = 0
        self._news = asyncio.Event()
        followers.add(self)

    def put(self, piece: Any, count: int) -> None:
        """*piece* has *count* entries; the oldest pieces are given up when too many wait."""
        self._waiting.append((piece, count))
        self._count += count
        while self._count > self._limit and len(self._waiting) > 1:
            _, least = self._waiting.popleft()
            self._count -= least
            self.lost += least
        self._news.set()

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> Any:
        while not self._waiting:
            self._news.clear()
            await self._news.wait()
        piece, count = self._waiting.popleft()
        self._count -= count
        return piece

    def close(self) -> None:
        """Nothing is kept for it any more."""
        self._followers.discard(self)


class Followers:
    """Everybody who follows; whoever has news puts it in once, and never waits."""

    def __init__(self, limit: int = FOLLOWER_ROWS) -> None:
        self._limit = limit
        self._all: set[Follower] = set()

    def __len__(self) -> int:
        return len(self._all)

    def follow(self) -> Follower:
        """One more, from now on."""
        return Follower(self._all, self._limit)

    def take(self, table: Table) -> None:
        """Rows for all."""
        for follower in self._all:
            follower.put(table, len(table.rows))

    def tell(self, events: Sequence[AgentEvent]) -> None:
        """Events for all."""
        for follower in self._all:
            follower.put(events, len(events))
