"""``tetragon.FineGuidanceSensors`` over gRPC: the node's runtime events for clients of Tetragon's API.

Imported only where the configuration asks for it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf import json_format

from cirri import protos
from cirri.errors import CirriError
from cirri.history.runtimejson import record
from cirri.history.runtimewire import spread
from cirri.manifests.runtimefields import Choose, fields_of
from cirri.manifests.runtimefilter import BadRuntimeFilter, Test, wanted
from cirri.model.runtimeevents import PolicyState, RuntimeBatch
from cirri.protos.calls import handlers

POOL: Any = protos.load(Path(__file__).parent / "build" / "tetragon.binpb")
SERVICE = "tetragon.FineGuidanceSensors"
METHODS = protos.methods(POOL, SERVICE)
TOLD = ("process_exec", "process_exit", "process_kprobe")
"""Types of events that the API has."""
WAITING = 1 << 16
"""Events that wait for a client; of more, the new ones are lost to it."""
SHARED = 0o117
"""Owner and group may speak to the socket, others not."""
STATES = {"enabled": "TP_STATE_ENABLED", "not served": "TP_STATE_LOAD_ERROR", "failed": "TP_STATE_LOAD_ERROR"}

Event = METHODS["GetEvents"][1]


class ApiPortTaken(CirriError):
    """The address cannot be listened on."""

    hint = "Another one may listen there"

    def __init__(self, address: str) -> None:
        super().__init__(f"server-address: cannot listen on {address}")


class Client:
    """One call of ``GetEvents``."""

    def __init__(self, request: Any) -> None:
        """Raises: BadRuntimeFilter."""
        self._wanted: Test = wanted(_filters(request.allow_list), _filters(request.deny_list))
        self._fields: Choose = fields_of("\n".join(map(_field_filter, request.field_filters)))
        self._waiting: asyncio.Queue[RuntimeBatch] = asyncio.Queue()
        self._count = 0
        self.lost = 0

    def take(self, batch: RuntimeBatch) -> None:
        """Have it told of *batch*."""
        if self._count + batch.count > WAITING:
            self.lost += batch.count
            return
        self._count += batch.count
        self._waiting.put_nowait(batch)

    async def events(self) -> AsyncIterator[Any]:
        """Messages, for ever."""
        while True:
            batch = await self._waiting.get()
            self._count -= batch.count
            for event in await asyncio.to_thread(self._messages, batch):
                yield event

    def _messages(self, batch: RuntimeBatch) -> list[Any]:
        whole = spread(batch)
        return [
            message(self._fields(record(event, whole)))
            for event in whole.events
            if event.type in TOLD and self._wanted(event, whole)
        ]


class Api:
    """The server; :meth:`listen` begins, :meth:`take` gives it what happens."""

    def __init__(self, states: Callable[[], Sequence[PolicyState]]) -> None:
        self._states = states
        self._clients: set[Client] = set()
        self._server: Any = None
        self._lost = 0

    @property
    def lost(self) -> int:
        """Events that clients were too slow for."""
        return self._lost + sum(client.lost for client in self._clients)

    async def listen(self, address: str) -> int:
        """On *address* (``unix:///PATH`` or ``HOST:PORT``).  The port.  Raises: ApiPortTaken."""
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        by = {
            "GetEvents": self._events,
            "GetHealth": self._health,
            "ListTracingPolicies": self._policies,
            "GetVersion": self._version,
        }
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(SERVICE, handlers(METHODS, by))]
        )
        if path := address.removeprefix("unix://").removeprefix(address):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).unlink(missing_ok=True)  # of a process that was killed
        mask = os.umask(SHARED)
        try:
            port = server.add_insecure_port(address)
            await server.start()
        except RuntimeError:
            raise ApiPortTaken(address) from None
        finally:
            os.umask(mask)
        self._server = server
        return int(port)

    def take(self, batch: RuntimeBatch) -> None:
        """Tell clients of *batch*."""
        for client in self._clients:
            client.take(batch)

    async def close(self) -> None:
        """Hang up."""
        if self._server is not None:
            await self._server.stop(0)

    async def _events(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            client = Client(request)
        except BadRuntimeFilter as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            return
        self._clients.add(client)
        try:
            await context.send_initial_metadata(())  # from now on nothing is missed
            async for event in client.events():
                yield event
        finally:
            self._clients.discard(client)
            self._lost += client.lost

    async def _health(self, request: Any, _context: Any) -> Any:
        answer = METHODS["GetHealth"][1]()
        if not request.event_set or 1 in request.event_set:
            answer.health_status.add(event=1, status=1, details="running")
        return answer

    async def _policies(self, _request: Any, _context: Any) -> Any:
        answer = METHODS["ListTracingPolicies"][1]()
        for state in self._states():
            namespace, _, name = state.name.rpartition("/")
            answer.policies.add(
                name=name,
                namespace=namespace,
                sensors=sorted(set(state.hooks.values())),
                error=state.why,
                state=STATES[state.state],
            )
        return answer

    async def _version(self, _request: Any, _context: Any) -> Any:
        return METHODS["GetVersion"][1](version=f"cirri {version('cirri')}")


def message(event: dict[str, Any]) -> Any:
    """An event in JSON as the API's message, as far as that has its fields."""
    return json_format.ParseDict(event, Event(), ignore_unknown_fields=True, descriptor_pool=POOL)


def _filters(filters: Sequence[Any]) -> str:
    """As the configuration would say it."""
    said = (
        json_format.MessageToDict(each, preserving_proto_field_name=True, descriptor_pool=POOL)
        for each in filters
    )
    return "\n".join(json.dumps(each) for each in said if each)


def _field_filter(said: Any) -> str:
    kinds = POOL.FindEnumTypeByName("tetragon.EventType").values_by_number
    return json.dumps(
        {
            "fields": ",".join(said.fields.paths),
            "action": "EXCLUDE" if said.action else "INCLUDE",
            "event_set": [kinds[each].name if each in kinds else each for each in said.event_set],
            "invert_event_set": said.invert_event_set.value,
        }
    )
