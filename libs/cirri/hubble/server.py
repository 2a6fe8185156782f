"""``observer.Observer`` over a :class:`Source`: the flows of a node, told to clients of the public API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import grpc

from cirri.history import Table
from cirri.hubble.facts import Numbers, Place
from cirri.hubble.filters import BadFilter, NotOffered
from cirri.hubble.flows import Teller
from cirri.hubble.messages import (
    GetAgentEventsResponse,
    GetFlowsResponse,
    GetNamespacesResponse,
    GetNodesResponse,
    LostEventSource,
    NodeState,
    ServerStatusResponse,
)
from cirri.hubble.order import Chosen, by_time
from cirri.hubble.source import AgentEvent, Follower, Source
from cirri.hubble.wanted import EVER, BadRequest, Wanted, flows_test, indexes, mask_of, masked

LATE_NS = 10**9
"""How long after ``until`` rows are waited for that were seen before it."""
LOST_SOURCES = {
    "ring": LostEventSource.PERF_EVENT_RING_BUFFER,
    "reader": LostEventSource.OBSERVER_EVENTS_QUEUE,
    "l7": LostEventSource.OBSERVER_EVENTS_QUEUE,
}
"""Causes of loss as the API names them; what the stream lost, the node still has."""


async def refuse(context: Any, error: BadFilter | BadRequest) -> None:
    """End the call with the status that clients expect."""
    unknown = isinstance(error, NotOffered)
    code = grpc.StatusCode.UNIMPLEMENTED if unknown else grpc.StatusCode.INVALID_ARGUMENT
    await context.abort(code, str(error))


class Observer:
    """Answers for one node."""

    def __init__(
        self, source: Source, node: str, place: Place, *, now: Callable[[], int] = time.time_ns
    ) -> None:
        self._source, self._node, self._place, self._now = source, node, place, now
        self.calls = 0
        """Calls of ``GetFlows`` so far."""
        self.told = 0
        """Flows told so far."""

    def methods(self) -> Mapping[str, Any]:
        """By the service's names."""
        return {
            "GetFlows": self._flows,
            "GetAgentEvents": self._events,
            "GetDebugEvents": self._debug_events,
            "GetNodes": self._nodes,
            "GetNamespaces": self._namespaces,
            "ServerStatus": self._status,
        }

    async def _flows(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.calls += 1
        try:
            wanted, test, mask = Wanted.of(request), flows_test(request, self._place), mask_of(request)
        except (BadFilter, BadRequest) as error:
            await refuse(context, error)
            return
        follower = self._source.follow() if wanted.follow else None
        try:
            if not wanted.from_now:
                past = self._past(wanted, lambda each: indexes(wanted, test, each))
                async for table, chosen in by_time(past):
                    for response in self._tell(table, chosen, mask):
                        yield response
            if follower is not None:
                async for response in self._live(follower, wanted, test, mask):
                    yield response
        finally:
            if follower is not None:
                follower.close()

    async def _past(self, wanted: Wanted, choose: Callable[[Table], Numbers]) -> AsyncIterator[Chosen]:
        """What the source holds, oldest first."""
        left = wanted.number or EVER
        late: list[Chosen] = []
        async for table in self._source.tables(newest_first=wanted.newest):
            if len(chosen := choose(table)):
                chosen = chosen[-left:] if wanted.newest else chosen[:left]
                left -= len(chosen)
                if wanted.newest:
                    late.append((table, chosen))
                else:
                    yield table, chosen
            if not left:
                break
        for each in reversed(late):
            yield each

    async def _live(self, follower: Follower, wanted: Wanted, test: Any, mask: Any) -> AsyncIterator[Any]:
        """What comes, and what was lost, until the time that was asked for is over."""
        lost, missed = dict(self._source.status().lost), 0
        end = None if wanted.until_ns == EVER else wanted.until_ns + LATE_NS
        while True:
            try:
                async with asyncio.timeout(None if end is None else max(0, end - self._now()) / 10**9):
                    table = await anext(follower)
            except TimeoutError:
                return
            for source, count in self._losses(lost):
                yield self._lost(source, count)
            if follower.lost > missed:
                yield self._lost(LostEventSource.HUBBLE_RING_BUFFER, follower.lost - missed)
                missed = follower.lost
            for response in self._tell(table, indexes(wanted, test, table), mask):
                yield response

    def _losses(self, before: dict[str, int]) -> list[tuple[int, int]]:
        """(source, how many) that got lost since *before*, which becomes what is known now."""
        found = []
        for cause, count in self._source.status().lost.items():
            if cause in LOST_SOURCES and count > before.get(cause, 0):
                found.append((LOST_SOURCES[cause], count - before.get(cause, 0)))
                before[cause] = count
        return found

    def _lost(self, source: int, count: int) -> Any:
        response = GetFlowsResponse(node_name=self._place.node(self._node))
        response.time.FromNanoseconds(self._now())
        response.lost_events.source, response.lost_events.num_events_lost = source, count
        return response

    def _tell(self, table: Table, chosen: Numbers, mask: Any) -> Any:
        teller = Teller(table, self._place)
        self.told += len(chosen)
        for index in chosen:
            response = teller.response(int(index))
            if mask is not None:
                response.flow.CopyFrom(masked(response.flow, mask))
            yield response

    async def _events(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            wanted = Wanted.of(request)
        except BadRequest as error:
            await refuse(context, error)
            return
        follower = self._source.follow_events() if wanted.follow else None
        try:
            past = [] if wanted.from_now else self._timely(wanted, self._source.events())
            if wanted.number:
                past = past[: wanted.number] if wanted.first else past[-wanted.number :]
            for event in past:
                yield self._event(event)
            if follower is not None:
                async for events in follower:
                    for event in self._timely(wanted, events):
                        yield self._event(event)
        finally:
            if follower is not None:
                follower.close()

    @staticmethod
    def _timely(wanted: Wanted, events: Sequence[AgentEvent]) -> list[AgentEvent]:
        return [event for event in events if wanted.since_ns <= event.time_ns <= wanted.until_ns]

    def _event(self, event: AgentEvent) -> Any:
        response = GetAgentEventsResponse(agent_event=event.event, node_name=self._place.node(self._node))
        response.time.FromNanoseconds(event.time_ns)
        return response

    async def _debug_events(self, _: Any, context: Any) -> AsyncIterator[Any]:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Cirri's datapath records no debug events")
        yield  # the method is a stream

    async def _nodes(self, _: Any, __: Any) -> Any:
        status = self._source.status()
        response = GetNodesResponse()
        response.nodes.add(
            name=self._place.node(self._node),
            version=status.version,
            state=NodeState.NODE_CONNECTED,
            uptime_ns=status.uptime_ns,
            num_flows=status.num,
            max_flows=status.max,
            seen_flows=status.seen,
        )
        return response

    async def _namespaces(self, _: Any, __: Any) -> Any:
        response = GetNamespacesResponse()
        for cluster, namespace in sorted(self._source.namespaces()):
            response.namespaces.add(cluster=cluster, namespace=namespace)
        return response

    async def _status(self, _: Any, __: Any) -> Any:
        status = self._source.status()
        return ServerStatusResponse(
            num_flows=status.num,
            max_flows=status.max,
            seen_flows=status.seen,
            uptime_ns=status.uptime_ns,
            version=status.version,
            flows_rate=status.flows_rate,
        )
