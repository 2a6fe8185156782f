"""Metrics and files of flows, as the configuration wants them; what nobody asked for is not even imported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from cirri.errors import CirriError
from cirri.flows.redact import redact
from cirri.history.rows import Table
from cirri.model import Endpoint
from cirri.model.flowexport import InvalidExport, Redaction, exports, redaction
from cirri.model.flowmetrics import InvalidMetrics, families, server
from cirri.model.records import L7Record
from cirri.runtime import Runtime
from cirri.runtime.health import Page, serve, serve_everywhere

if TYPE_CHECKING:
    from cirri.flows.exporter import Exports
    from cirri.flows.metrics import FlowMetrics
    from cirri.hubble.facts import Place

LISTEN_S = 5.0
"""Between attempts to have the port of the metrics."""


class Outlets:
    """Takes tables and tells them on."""

    def __init__(self, rt: Runtime, lost: Callable[[], Mapping[str, int]]) -> None:
        self._rt, self._lost = rt, lost
        self.metrics: FlowMetrics | None = None
        """None: nothing is counted."""
        self.exports: Exports | None = None
        """None: there has been no file yet."""
        self._redaction = Redaction()
        self._at: tuple[str, int] | None = None
        self._moved = asyncio.Event()
        self._pods: dict[str, tuple[str, str]] = {}

    def configure(self, data: Mapping[str, str]) -> list[CirriError]:
        """Do what *data* says; what it says wrong, which costs just that."""
        wrong: list[CirriError] = [*self._count(data), *self._export(data)]
        try:
            self._redaction = redaction(data)
        except InvalidExport as error:
            wrong.append(error)
        return wrong

    def take(self, table: Table) -> None:
        """Count and write the rows of *table*."""
        if self.metrics is not None:
            self.metrics.take(table)
        if self.exports is not None:
            self.exports.take(table)

    def redacted(self, records: tuple[L7Record, ...]) -> tuple[L7Record, ...]:
        """*records*, without what nobody is to know."""
        return tuple(redact(record, self._redaction) for record in records)

    def endpoint(self, key: str, endpoint: Endpoint | None) -> None:
        """A pod is there, or (None) no more: its series end some time later."""
        if endpoint is not None:
            pod = self._pods[key] = (endpoint.namespace, endpoint.pod)
            if self.metrics is not None:
                self.metrics.pod_here(*pod)
            return
        gone = self._pods.pop(key, None)
        if self.metrics is not None and gone is not None and gone not in self._pods.values():
            self.metrics.pod_gone(*gone)

    async def run(self) -> None:
        """Serve the metrics until cancelled."""
        while True:
            at = self._at
            self._moved.clear()
            if at is None:
                self._rt.ready("metrics", True)
                await self._moved.wait()
                continue
            try:
                listener = await self._listen(*at)
            except OSError as error:
                why = f"cannot listen on {at[0]}:{at[1]}: {error.strerror or error}"
                self._rt.ready("metrics", False, why)
                with suppress(TimeoutError):
                    async with asyncio.timeout(LISTEN_S):
                        await self._moved.wait()
                continue
            self._rt.ready("metrics", True)
            try:
                while self._at == at:
                    self._moved.clear()
                    await self._moved.wait()
            finally:
                listener.close()

    def close(self) -> None:
        """Write what is still to be written, as far as there is time."""
        if self.exports is not None:
            self.exports.close()

    async def _listen(self, host: str, port: int) -> asyncio.Server:
        pages = {"/metrics": self._page}
        if not host:
            return await serve_everywhere(port, pages)
        listener, _ = await serve((host, port), pages)
        return listener

    def _page(self) -> Page:
        return self.metrics.page() if self.metrics is not None else Page(404, b"nothing is counted\n")

    def _place(self, data: Mapping[str, str]) -> Place:
        from cirri.hubble.facts import Place

        return Place(data.get("cluster-name") or self._rt.settings.cluster)

    def _count(self, data: Mapping[str, str]) -> Iterator[InvalidMetrics]:
        wanted, wrong = families(data)
        yield from wrong
        if wanted and self.metrics is None:
            from cirri.flows.metrics import FlowMetrics

            self.metrics = FlowMetrics(self._lost, self._place(data))
        if self.metrics is not None:
            yield from self.metrics.configure(wanted)
            if not self.metrics.families:
                self.metrics = None
        try:
            at = server(data) if self.metrics is not None else None
        except InvalidMetrics as error:
            at = self._at
            yield error
        if at != self._at:
            self._at = at
            self._moved.set()

    def _export(self, data: Mapping[str, str]) -> Iterator[InvalidExport]:
        wanted, wrong = exports(data)
        yield from wrong
        if wanted and self.exports is None:
            from cirri.flows.exporter import Exports
            from cirri.flows.exportmetrics import ExportMetrics

            self.exports = Exports(self._rt.log.warning, self._place(data))
            self._rt.metrics.register(ExportMetrics(self.exports))
        if self.exports is not None:
            yield from self.exports.configure(wanted)
