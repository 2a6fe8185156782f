"""``observer.Observer`` for the cluster: asks nodes, reads what is stored, tells both as one."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import grpc

from cirri.errors import CirriError
from cirri.hubble.facts import Place, Test
from cirri.hubble.filters import BadFilter
from cirri.hubble.messages import (
    GetAgentEventsRequest,
    GetFlowsRequest,
    GetFlowsResponse,
    GetNamespacesRequest,
    GetNamespacesResponse,
    GetNodesResponse,
    NodeState,
    ServerStatusRequest,
    ServerStatusResponse,
)
from cirri.hubble.server import refuse
from cirri.hubble.wanted import EVER, BadRequest, Wanted, flows_test, mask_of, masked
from cirri.relay.live import Live, why
from cirri.relay.merge import Recent, in_order
from cirri.relay.pool import Node, Pool
from cirri.relay.stored import Read, forward, newest

ANSWER_S = 5.0
"""How long a node may take for its next answer, before it counts as one that failed."""
NAMED = 10
"""Nodes that are away and named in a status; all are counted."""
AWAY = "cirri-nodes-away"
"""What a client of a method whose messages have no place for it finds in the trailing metadata."""


class Relay:
    """Answers for the cluster.  *read*: the stream of flows."""

    def __init__(
        self, pool: Pool, read: Read, place: Place, version: str, *, now: Callable[[], int] = time.time_ns
    ) -> None:
        self.pool, self._read, self._place, self.now = pool, read, place, now
        self._version = version
        self.window_s = 1.0
        self.told = 0
        """Flows told so far."""
        self.following = 0
        """Clients that follow."""

    def methods(self) -> Mapping[str, Any]:
        """By the service's names."""
        return {
            "GetFlows": self._flows,
            "GetAgentEvents": self._agent_events,
            "GetDebugEvents": self._debug_events,
            "GetNodes": self._nodes,
            "GetNamespaces": self._namespaces,
            "ServerStatus": self._status,
        }

    # flows --------------------------------------------------------------------------------------------

    async def _flows(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            wanted, test, mask = Wanted.of(request), flows_test(request, self._place), mask_of(request)
        except (BadFilter, BadRequest) as error:
            await refuse(context, error)
            return
        there, away = await self.pool.sorted()
        if there:
            yield self.event(NodeState.NODE_CONNECTED, [node.name for node in there])
        for reason in sorted({node.why for node in away}):
            names = [node.name for node in away if node.why == reason]
            yield self.event(NodeState.NODE_UNAVAILABLE, names, reason)
        begin, recent = self.now(), Recent()
        if not wanted.from_now:
            async for response in self._past_flows(request, wanted, test, there, recent):
                yield self._cut(response, mask)
        if wanted.follow:
            asked = GetFlowsRequest(whitelist=request.whitelist, blacklist=request.blacklist, follow=True)
            if request.HasField("until"):
                asked.until.CopyFrom(request.until)
            live = Live(self, "GetFlows", asked, {node.name for node in away})
            async for response in self._follow(live, begin, wanted, recent):
                yield self._cut(response, mask)

    async def _follow(self, live: Live, begin: int, wanted: Wanted, recent: Recent) -> AsyncIterator[Any]:
        """What nodes tell since *begin*, and was not told."""
        self.following += 1
        try:
            async for response in live.responses(begin, wanted):
                if recent.first(response):
                    yield response
        finally:
            live.close()
            self.following -= 1

    def _past_flows(
        self, request: Any, wanted: Wanted, test: Test, nodes: list[Node], recent: Recent
    ) -> AsyncIterator[Any]:
        """What nodes hold, and with bounds of time what is stored: both may tell the same flow."""
        asked = GetFlowsRequest()
        asked.CopyFrom(request)
        asked.follow = False
        asked.ClearField("field_mask")
        faults: list[Any] = []
        streams = [self._node_answers(node, "GetFlows", asked, faults) for node in nodes]
        if request.HasField("since") or request.HasField("until"):
            streams.append(self._stored(wanted, test, faults))
        return self._past(wanted, streams, faults, recent)

    @staticmethod
    async def _past(
        wanted: Wanted, streams: list[AsyncIterator[Any]], faults: list[Any], recent: Recent
    ) -> AsyncIterator[Any]:
        """What *streams* tell in order, as many as are *wanted*; *faults* as they come."""
        left, last = wanted.number or EVER, deque[Any](maxlen=wanted.number or None)
        async for response in in_order(streams):
            while faults:
                yield faults.pop()
            if not recent.first(response):
                continue
            if wanted.newest:
                last.append(response)
                continue
            yield response
            left -= 1
            if not left:
                break
        for response in [*faults, *last]:
            yield response

    async def _node_answers(
        self, node: Node, method: str, request: Any, faults: list[Any]
    ) -> AsyncIterator[Any]:
        """What *node* answers; if it fails, that is put among *faults*."""
        call = getattr(node.observer, method)(request)
        try:
            while True:
                async with asyncio.timeout(ANSWER_S):
                    response = await call.read()
                if response is grpc.aio.EOF:
                    return
                yield response
        except TimeoutError:
            faults.append(self.event(NodeState.NODE_ERROR, [node.name], f"no answer for {ANSWER_S:g} s"))
        except grpc.aio.AioRpcError as error:
            faults.append(self.event(NodeState.NODE_ERROR, [node.name], why(error)))
        finally:
            call.cancel()

    async def _stored(self, wanted: Wanted, test: Test, faults: list[Any]) -> AsyncIterator[Any]:
        """What the stream holds."""
        try:
            if wanted.newest:
                for response in await newest(self._read, wanted, test, self._place, wanted.number):
                    yield response
            else:
                async for response in forward(self._read, wanted, test, self._place):
                    yield response
        except CirriError as error:
            faults.append(self.event(NodeState.NODE_ERROR, [], f"what is stored cannot be read: {error}"))

    def event(self, state: int, names: Iterable[str], message: str = "") -> Any:
        """A response that says how nodes are."""
        response = GetFlowsResponse()
        response.time.FromNanoseconds(self.now())
        response.node_status.state_change = state
        response.node_status.node_names.extend(names)
        response.node_status.message = message
        return response

    def _cut(self, response: Any, mask: Any) -> Any:
        if response.WhichOneof("response_types") == "flow":
            self.told += 1
            if mask is not None:
                response.flow.CopyFrom(masked(response.flow, mask))
        return response

    # the rest -----------------------------------------------------------------------------------------

    async def _agent_events(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Events of all nodes.  There is no message for nodes that are away: they are in :data:`AWAY`."""
        try:
            wanted = Wanted.of(request)
        except BadRequest as error:
            await refuse(context, error)
            return
        there, away = await self.pool.sorted()
        missing = {node.name: node.why for node in away}
        begin, recent, faults = self.now(), Recent(), list[Any]()
        if not wanted.from_now:
            asked = GetAgentEventsRequest()
            asked.CopyFrom(request)
            asked.follow = False
            streams = [self._node_answers(node, "GetAgentEvents", asked, faults) for node in there]
            async for response in self._past(wanted, streams, faults, recent):
                if not isinstance(response, GetFlowsResponse):
                    yield response
                    continue
                missing |= dict.fromkeys(response.node_status.node_names, response.node_status.message)
        if wanted.follow:
            asked = GetAgentEventsRequest(follow=True)
            if request.HasField("until"):
                asked.until.CopyFrom(request.until)
            live = Live(self, "GetAgentEvents", asked, {node.name for node in away})
            async for response in self._follow(live, begin, wanted, recent):
                if not isinstance(response, GetFlowsResponse):
                    yield response
        elif missing:
            said = "; ".join(f"{name}: {reason}".removesuffix(": ") for name, reason in missing.items())
            if len(missing) == len(self.pool.nodes):
                await context.abort(grpc.StatusCode.UNAVAILABLE, f"no node answers: {said}")
            context.set_trailing_metadata(((AWAY, said.encode("ascii", "replace").decode()),))

    async def _debug_events(self, _: Any, context: Any) -> AsyncIterator[Any]:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Cirri's datapath records no debug events")
        yield  # the method is a stream

    async def _ask(self, method: str, request: Any) -> tuple[dict[str, Any], list[str]]:
        """(node -> answer, nodes that gave none)."""
        there, away = await self.pool.sorted()

        async def one(node: Node) -> Any:
            with suppress(grpc.aio.AioRpcError):
                return await getattr(node.observer, method)(request, timeout=ANSWER_S)

        answers = await asyncio.gather(*map(one, there))
        found = {node.name: answer for node, answer in zip(there, answers, strict=True) if answer is not None}
        return found, [node.name for node in (*away, *there) if node.name not in found]

    async def _status(self, _: Any, __: Any) -> Any:
        answers, away = await self._ask("ServerStatus", ServerStatusRequest())
        status = ServerStatusResponse(version=self._version, unavailable_nodes=away[:NAMED])
        for answer in answers.values():
            status.num_flows += answer.num_flows
            status.max_flows += answer.max_flows
            status.seen_flows += answer.seen_flows
            status.flows_rate += answer.flows_rate
            status.uptime_ns = max(status.uptime_ns, answer.uptime_ns)
        status.num_connected_nodes.value = len(answers)
        status.num_unavailable_nodes.value = len(away)
        return status

    async def _nodes(self, _: Any, __: Any) -> Any:
        there, _away = await self.pool.sorted()
        answers, _missing = await self._ask("ServerStatus", ServerStatusRequest())
        connected = {node.name for node in there}
        response = GetNodesResponse()
        for name, node in sorted(self.pool.nodes.items()):
            told = response.nodes.add(name=name, address=node.peer.address)
            told.tls.enabled = bool(node.peer.server_name)
            told.tls.server_name = node.peer.server_name
            if (answer := answers.get(name)) is None:
                failed = name in connected
                told.state = NodeState.NODE_ERROR if failed else NodeState.NODE_UNAVAILABLE
                continue
            told.state = NodeState.NODE_CONNECTED
            told.version, told.uptime_ns = answer.version, answer.uptime_ns
            told.num_flows, told.max_flows, told.seen_flows = (
                answer.num_flows,
                answer.max_flows,
                answer.seen_flows,
            )
        return response

    async def _namespaces(self, _: Any, __: Any) -> Any:
        answers, _away = await self._ask("GetNamespaces", GetNamespacesRequest())
        found = {(one.cluster, one.namespace) for answer in answers.values() for one in answer.namespaces}
        response = GetNamespacesResponse()
        for cluster, namespace in sorted(found):
            response.namespaces.add(cluster=cluster, namespace=namespace)
        return response
