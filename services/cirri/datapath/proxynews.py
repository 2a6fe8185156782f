"""Tells the node's proxies what concerns them whenever it has changed, and hears what they say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from msgspec.structs import replace

from cirri.datapath.proxied import WAIT_S
from cirri.datapath.regenerate import Regenerator
from cirri.model.config import config_data
from cirri.proxies import NodeProxies, ProxyEndpoint, Serving


class ProxyNews:
    """Compares what proxies are to know with what they were told last."""

    def __init__(
        self,
        regenerator: Regenerator,
        publish: Callable[[NodeProxies], None],
        *,
        step: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        """*step* brings the kernel to what is known, *wake* has that done soon."""
        self._regenerator, self._publish = regenerator, publish
        self._step, self._wake = step, wake
        self._told: NodeProxies | None = None
        self._heard = asyncio.Event()
        self._coming: asyncio.Future[None] | None = None
        """The step that those who ask now wait for."""

    async def number(self, keys: Iterable[str]) -> int:
        """The number of a set of selectors of names, once policy about it is in force.

        Listeners that it needs are waited for, but not for ever.  Raises: NoNames, NamesExhausted.
        """
        enforcer, known = self._regenerator.enforcer, frozenset(keys)
        number, new = enforcer.proxied.names.number(known)
        if new:
            enforcer.note_names(known)
        if new or self._coming is not None:
            await self._stepped()
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                while enforcer.proxied.unheard(number):
                    await self._heard.wait()
                    self._step()
        return number

    async def _stepped(self) -> None:
        """Bring the kernel to what is known; all who ask at once wait for one step."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._come())
        await asyncio.shield(self._coming)

    async def _come(self) -> None:
        await asyncio.sleep(0)  # what has been asked by now is noted first
        self._coming = None
        self._regenerator.enforcer.proxied.names.save()
        self._step()

    def sets(self) -> dict[int, tuple[str, ...]]:
        """The names of each set that has a number; a name that policies speak of no more is missing."""
        selectors = self._regenerator.views.selectors
        return {
            number: tuple(sorted(selectors[key].name for key in keys if key in selectors))
            for number, keys in sorted(self._regenerator.enforcer.proxied.names.sets.items())
        }

    def serving(self, report: Serving) -> None:
        """The L7 proxy says where it listens."""
        self._regenerator.enforcer.proxied.serving(report)
        self._regenerator.note_waiting()
        self._wake()
        self._heard.set()
        self._heard = asyncio.Event()

    def step(self) -> None:
        """Tell them what is new."""
        regenerator, enforcer, before = self._regenerator, self._regenerator.enforcer, self._told
        records = (local.record for local in regenerator.locals.values() if local.record.identity)
        now = enforcer.proxied.snapshot(
            node=regenerator.node,
            endpoints=(
                ProxyEndpoint(
                    id=one.id,
                    identity=one.identity,
                    namespace=one.namespace,
                    pod=one.pod,
                    addresses=one.addresses,
                )
                for one in records
            ),
            policies=enforcer.realized,
            members=enforcer.members,
            name=enforcer.name,
            settings=config_data(regenerator.views.config),
        )
        if before is None or now != replace(before, revision=0):
            # Of two processes the later one's is larger.
            revision = before.revision + 1 if before is not None else time.time_ns()
            self._told = replace(now, revision=revision)
            self._publish(self._told)
