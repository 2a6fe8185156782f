"""The unix socket that Envoy speaks gRPC to: configuration one way, access records the other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from cirri.l7proxy.messages import LOGS
from cirri.l7proxy.resources import Wanted
from cirri.l7proxy.session import Refusal, Session

NO_LIMIT = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

TellRecords = Callable[[str, bytes], None]
"""Called with the log's name and a message of access records."""


class XdsServer:
    """Tells every Envoy that connects what is wanted, as long as it is connected.

    *moved* is called whenever one took or refused something, or left; *records* for access records.
    """

    def __init__(
        self, socket: Path, *, moved: Callable[[Refusal | None], None], records: TellRecords
    ) -> None:
        self.socket = socket
        self.sessions: set[Session] = set()
        self.refusals = 0
        self._wanted: Wanted | None = None
        self._news: dict[Session, asyncio.Event] = {}
        self._moved, self._records = moved, records
        self._number = 0
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen, in place of a socket that a killed process left.  Only root may connect."""
        server = grpc.aio.server(options=NO_LIMIT)
        discovery = grpc.stream_stream_rpc_method_handler(self._discover)
        logs = grpc.stream_unary_rpc_method_handler(self._log)
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "envoy.service.discovery.v3.AggregatedDiscoveryService",
                    {"DeltaAggregatedResources": discovery},
                ),
                grpc.method_handlers_generic_handler(
                    "envoy.service.accesslog.v3.AccessLogService", {"StreamAccessLogs": logs}
                ),
            )
        )
        self.socket.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            server.add_insecure_port(f"unix:{self.socket}")
            await server.start()
        finally:
            os.umask(mask)
        self._server = server

    async def close(self) -> None:
        """Hang up; Envoy goes on with what it has."""
        if self._server is not None:
            await self._server.stop(0)

    def want(self, wanted: Wanted) -> None:
        """Have every Envoy told what changed."""
        self._wanted = wanted
        for event in self._news.values():
            event.set()

    @property
    def newest(self) -> Iterable[Session]:
        """Sessions, the youngest first."""
        return sorted(self.sessions, key=lambda session: -session.number)

    async def _discover(self, requests: AsyncIterator[bytes], context: Any) -> None:
        self._number += 1
        session, news = Session(self._number), asyncio.Event()
        self.sessions.add(session)
        self._news[session] = news
        try:
            async with asyncio.TaskGroup() as tasks:
                telling = tasks.create_task(self._tell(session, news, context))
                async for request in requests:
                    refusal = session.hear(request)
                    self.refusals += refusal is not None
                    news.set()
                    self._moved(refusal)
                telling.cancel()
        finally:
            self.sessions.discard(session)
            del self._news[session]
            self._moved(None)

    async def _tell(self, session: Session, news: asyncio.Event, context: Any) -> None:
        while True:
            await news.wait()
            news.clear()
            if self._wanted is not None:
                for response in session.say(self._wanted):
                    await context.write(response)

    async def _log(self, messages: AsyncIterator[bytes], _: Any) -> bytes:
        name = ""
        async for message in messages:
            if not name:
                name = LOGS.decode(message).get("identifier", {}).get("log_name", "")
            self._records(name, message)
        return b""
