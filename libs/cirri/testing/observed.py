"""An observer's source that holds the tables it was given, as the service ``flows`` holds its ring."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from cirri.history import Table
from cirri.hubble.source import AgentEvent, Follower, Followers, SourceStatus


class Held:
    """Tables in memory; what is added is told to those who follow."""

    def __init__(self, tables: Sequence[Table] = (), *, limit: int = 1 << 16) -> None:
        self.held = list(tables)
        self.happened: list[AgentEvent] = []
        self.lost: dict[str, int] = {}
        self.followers = Followers(limit)
        self.event_followers = Followers()

    async def tables(self, *, newest_first: bool = False) -> AsyncIterator[Table]:
        """All that were added so far."""
        for table in self.held[::-1] if newest_first else list(self.held):
            yield table

    def follow(self) -> Follower:
        """What is added from now on."""
        return self.followers.follow()

    def add(self, table: Table) -> None:
        """Rows that were seen just now."""
        self.held.append(table)
        self.followers.take(table)

    def status(self) -> SourceStatus:
        """Of what is held."""
        rows = sum(len(table.rows) for table in self.held)
        return SourceStatus(
            num=rows,
            max=4095,
            seen=rows,
            uptime_ns=5 * 10**9,
            flows_rate=1.5,
            version="cirri 0",
            lost=dict(self.lost),
        )

    def namespaces(self) -> Sequence[tuple[str, str]]:
        """Of all ends."""
        ends = {end for table in self.held for end in table.ends if end.namespace}
        return sorted({(end.cluster, end.namespace) for end in ends})

    def events(self) -> Sequence[AgentEvent]:
        """All so far."""
        return list(self.happened)

    def follow_events(self) -> Follower:
        """What happens from now on."""
        return self.event_followers.follow()

    def happen(self, event: AgentEvent) -> None:
        """Something happened to the node."""
        self.happened.append(event)
        self.event_followers.tell([event])
