"""How large maps are, how often they are swept, and how often observers are told of packets.

Programs are loaded with their maps before the bus has answered, so what the configuration said is kept in a
file: sizes are those that it had when the service last heard of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from cirri.kv import Table
from cirri.layout.limits import InvalidLimits, Limits
from cirri.layout.tracing import Tracing
from cirri.model import Resource
from cirri.model.config import config_data

FIRST_S = 0.3
"""How long a node that has no such file waits for the configuration: its maps have yet to be made."""


class Configured:
    """What the maps were made with, and what is configured by now."""

    def __init__(self, file: Path) -> None:
        """*file* outlives the process; one that cannot be read is as if there was none."""
        self._file = file
        self._known: Limits | None = None
        with suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
            self._known = msgspec.json.decode(file.read_bytes(), type=Limits)
        self.made = self._known or Limits()
        self.now = self.made
        self.fault = ""
        self.tracing = Tracing()

    async def begin(self, config: Table[Resource]) -> dict[str, int]:
        """Sizes of maps to be made, by name."""
        if self._known is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_S):
                    await config.ready.wait()
                    self.note(config_data(config))
                    self.made, self.fault = self.now, ""
        return self.made.entries

    def note(self, data: Mapping[str, str]) -> bool:
        """The configuration as it is; whether that is another thing to complain of."""
        before, self.fault = self.fault, ""
        try:
            self.tracing = Tracing.of(data)
            self.now = Limits.of(data)
        except InvalidLimits as error:
            self.fault = str(error)
            return self.fault != before
        if self.now != self._known:
            self._known = self.now
            draft = self._file.with_suffix(".draft")
            draft.write_bytes(msgspec.json.encode(self.now))
            draft.rename(self._file)
        if self.now.entries != self.made.entries:
            self.fault = "cirri-config: other sizes of maps are in force when this service starts again"
        return self.fault != before
