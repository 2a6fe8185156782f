"""From what was read to what is written, one step at a time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from msgspec.structs import asdict

from cirri.policy.compilation import Compilation
from cirri.policy.inputs import Inputs
from cirri.policy.publication import Publication

LOOK_S = 0.5
"""How often the marker is compared with the buckets when nothing happens: a bucket that was made
anew counts its revisions from 1."""
MARK_S, MARK_AT_LATEST_S = 0.005, 0.05
"""The marker is written once no news has come for so long: nodes have the rules in force before they are
asked to say so, and a burst of changes has one acknowledgement."""
LATE_S = 5.0
"""How long a prefix may have no identity before the service is not ready."""


class Steps:
    """Keeps the buckets equal to what *compilation* has."""

    def __init__(self, inputs: Inputs, compilation: Compilation, publication: Publication) -> None:
        self.inputs, self.compilation, self.publication = inputs, compilation, publication
        self._whole = False
        """Whether the buckets hold all of what was compiled, so that changes are enough."""
        self._reached = 0
        """The revision up to which all of ``resources`` has been read and compiled."""
        self._quiet = False
        self._due: float | None = None
        """Since when nodes are to be told something (seconds of the loop's clock)."""

    async def start(self) -> None:
        """Read what is needed for the first step."""
        await self.publication.start()
        await self.inputs.next()

    async def step(self) -> None:
        """Write what follows from the news, and the marker when its time has come.

        Raises: BusError; then everything is looked at in the next step.
        """
        whole, self._whole = self._whole, False
        waited = bool(self.compilation.lacking)
        await (self._write() if whole else self._write_all())
        await self._mark(at_once=waited and not self.compilation.lacking)
        self._whole = True

    async def wait(self) -> None:
        """Return when there is something for another step."""
        self._quiet = not await self.inputs.next(LOOK_S if self._due is None else MARK_S)

    @property
    def late(self) -> str:
        """What keeps policies from coming into force, as a sentence; "" if nothing does."""
        if self.publication.too_large:
            return next(iter(self.publication.too_large.values()))
        lacking = self.compilation.lacking
        return self.compilation.late if lacking and min(lacking.values()) < time.time() - LATE_S else ""

    def report(self) -> dict[str, Any]:
        """What ``cirri.policy.status`` answers."""
        return {
            "revision": self.inputs.revision,
            "marker": asdict(self.publication.marked),
            "too_large": self.publication.too_large,
            **self.compilation.report(),
        }

    async def _write(self) -> None:
        reached = self.inputs.revision
        if reached == self._reached:
            await self._write_changes()
            return
        await self._write_changes(wait_for_all=True)
        self.inputs.take()
        await self._write_changes()
        self._reached = reached

    async def _write_changes(self, *, wait_for_all: bool = False) -> None:
        publication, now = self.publication, time.time()
        delta = self.compilation.compiler.flush()
        self.compilation.look(now)
        conditions = self.compilation.take_conditions(publication.said, now)
        beside = (self.inputs.caught_up(),) if wait_for_all else ()
        await publication.write(delta, conditions, *beside)

    async def _write_all(self) -> None:
        reached = self.inputs.revision
        await self.inputs.caught_up()
        self.inputs.take()
        now = time.time()
        compilation, publication = self.compilation, self.publication
        compilation.compiler.flush()
        compilation.look(now)
        conditions = compilation.take_conditions(publication.said, now, everything=True)
        self._reached = reached
        await publication.whole(
            compilation.compiler, conditions, lambda: self._resources, self.inputs.identities
        )
        self.inputs.moved = False

    @property
    def _resources(self) -> int:
        """Up to which revision nodes have everything: no further while something is missing."""
        if self.compilation.lacking or self.publication.too_large:
            return min(self.publication.marked.resources, self._reached)
        return self._reached

    async def _mark(self, *, at_once: bool) -> None:
        inputs, publication, marked = self.inputs, self.publication, self.publication.marked
        resources = self._resources
        if (
            resources == marked.resources
            and not inputs.moved
            and publication.selectors >= marked.selectors
            and inputs.identities >= marked.identities
        ):
            self._due = None
            return
        now = asyncio.get_running_loop().time()
        if self._due is None:
            self._due = now
        if at_once or self._quiet or now - self._due > MARK_AT_LATEST_S:
            await publication.mark(resources, inputs.identities)
            inputs.moved, self._due = False, None
