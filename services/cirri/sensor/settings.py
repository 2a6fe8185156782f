"""What the configuration says of runtime events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from cirri.errors import CirriError
from cirri.kv.news import News
from cirri.manifests.runtimeexport import REDACT, InvalidRuntimeExport, api_address, runtime_export
from cirri.manifests.runtimefilter import BadRuntimeFilter
from cirri.manifests.runtimeredact import everything, redaction_of
from cirri.model import RESOURCES
from cirri.model.config import CONFIG, config_data
from cirri.model.runtimeevents import PolicyState, RuntimeBatch
from cirri.runtime import Runtime
from cirri.sensor.export import Exporter
from cirri.sensor.processes import Processes

if TYPE_CHECKING:
    from cirri.sensor.api import Api


class Settings:
    """Has events told in the file and over gRPC as is asked for, and arguments redacted.

    Arguments are not told at all until it is known what is to be taken out of them, be it that the bus is
    away or that filters are wrong; with filters that are wrong those before stay.
    """

    def __init__(
        self,
        rt: Runtime,
        processes: Processes,
        exporter: Exporter,
        states: Callable[[], Sequence[PolicyState]] = tuple,
    ) -> None:
        """*states*: what becomes of tracing policies."""
        self._rt, self._processes, self._states = rt, processes, states
        self.exporter = exporter
        self.api: Api | None = None
        """None: nobody asks for it."""
        self._address = ""
        self.known = asyncio.Event()
        """The configuration has been read."""
        processes.redact(everything)

    async def follow(self) -> None:
        """Do what is said, until cancelled."""
        config = self._rt.table(RESOURCES, CONFIG, needed=False)
        news = News({"config": config})
        while True:
            await news.next()
            wrong = [*self.adopt(data := config_data(config)), *await self._listen(data)]
            self._rt.ready("configuration", not wrong, "; ".join(wrong))
            self.known.set()

    def take(self, batch: RuntimeBatch) -> None:
        """Tell of *batch* where that is asked for."""
        self.exporter.take(batch)
        if self.api is not None:
            self.api.take(batch)

    async def close(self) -> None:
        """Write what is to be written, as far as there is time, and hang up."""
        self.exporter.close()
        if self.api is not None:
            await self.api.close()

    def adopt(self, data: Mapping[str, str]) -> list[str]:
        """Redact and write as *data* says; what it says wrong, which is left as it was."""
        wrong = []
        try:
            self._processes.redact(redaction_of(data.get(REDACT, "")))
        except BadRuntimeFilter as error:
            wrong.append(str(InvalidRuntimeExport(REDACT, str(error))))
        try:
            self.exporter.configure(runtime_export(data))
        except InvalidRuntimeExport as error:
            wrong.append(str(error))
        return wrong

    async def _listen(self, data: Mapping[str, str]) -> list[str]:
        try:
            address = api_address(data)
        except InvalidRuntimeExport as error:
            return [str(error)]
        if address == self._address:
            return []
        if self.api is not None:
            await self.api.close()
            self.api, self._address = None, ""
        if address:
            from cirri.sensor.api import Api

            api = Api(self._states)
            try:
                await api.listen(address)
            except CirriError as error:
                return [str(error)]
            self.api, self._address = api, address
        return []
