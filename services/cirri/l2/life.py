"""Being alive: one record on the bus, written again and again, and the others' records heard.

A node that starts while others are at work listens for a while before it beats, so that what they hold moves
to it once and not at each of its attempts; so does one that others went on without.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from msgspec.structs import replace

from cirri.kv import BusError, Table
from cirri.model import ANNOUNCERS, Announcer
from cirri.model.announcer import L2Config
from cirri.model.bucket import token
from cirri.placement import Sight
from cirri.runtime import Runtime

SETTLE_S = 3.0
"""How long a node listens that comes to others who are at work."""
LEAVE_S = 3.0
"""How long others wait for one that is being replaced: the kernel of its node goes on answering."""
AWAY_S = 2.0
"""Away for longer, a node whose kernel still answers counts as left behind, too.  When the bus returns nodes
do not hear of it at once: among short times that difference is no sign that others took over."""
BEAT_S = 1.0
"""How long one beat may take until the next is tried."""


class Life:
    """This node's record, and who else lives."""

    def __init__(self, rt: Runtime, records: Table[Announcer], record: Announcer) -> None:
        self._rt, self._records = rt, records
        self.record = record
        self.config = L2Config()
        self.sight = Sight(record.node, duration_s=self.config.duration_s, renew_s=self.config.renew_s)
        self.beating, self.since = False, 0.0
        """Whether it beats, and since when."""
        self.moved: Callable[[], None] = lambda: None
        """Called when who lives, or what records say, may have changed."""
        self.silenced: Callable[[], bool] = lambda: False
        """Whether another node's announcement made our kernel silent: it took over."""
        self._wakes = asyncio.Event()
        self._before: dict[str, int] = {}

    def configure(self, config: L2Config) -> None:
        """Beat, and judge others' beats, as *config* says."""
        self.config = config
        self.sight.duration_s, self.sight.renew_s = config.duration_s, config.renew_s
        self._wakes.set()

    def alive(self, now: float) -> frozenset[str]:
        """Who lives; this node only while it beats."""
        found = self.sight.alive(now)
        return found if self.beating else found - {self.record.node}

    def blind(self, now: float) -> bool:
        """Whether this node cannot tell who lives."""
        return self.sight.blind(now) or not self._rt.bus.connected

    def sees(self, now: float) -> bool:
        """Whether it may take and leave: it beats, has heard who began when it did, and sees."""
        return self.beating and now - self.since > 2 * self.config.retry_s and not self.blind(now)

    async def hear(self) -> None:
        """Take note of beats, until cancelled."""
        names: dict[str, str] = {}
        said: dict[str, Announcer] = {}
        async for keys in self._records.changes():
            now, news = time.monotonic(), False
            for key in keys:
                record = self._records.get(key)
                if record is None:
                    self.sight.gone(names.pop(key, ""))
                    news = True
                    continue
                names[key] = record.node
                plain = replace(record, beat=0, leave_s=0.0)
                news |= self.sight.heard(record, now) or said.get(key) != plain
                said[key] = plain
            if news:
                self.moved()

    async def live(self, active: asyncio.Event) -> None:
        """Beat while *active* is set, until cancelled."""
        while True:
            await active.wait()
            self.sight.rests()
            await self._listen()
            self.beating, self.since = True, time.monotonic()
            self._rt.log.info("beats", drained=self.record.drained)
            self.moved()
            await self._beat(active)
            self.beating = False
            self._rt.log.info("rests")
            self.moved()

    async def say(self, record: Announcer) -> None:
        """Have others know *record* at once.  Raises: BusError."""
        self.record = replace(record, beat=self.record.beat + 1)
        self.sight.sends(self.record.beat, time.monotonic())
        await self._rt.bus.put(ANNOUNCERS, self.record)

    async def leave(self) -> None:
        """Ask others to wait for the process that comes after this one."""
        if self.beating:
            with suppress(BusError, TimeoutError):
                async with asyncio.timeout(0.3):
                    await self.say(replace(self.record, leave_s=LEAVE_S))

    async def _listen(self) -> None:
        """Until this node may count as living: soon if all are new, or if it was away with leave."""
        resumes = self.record.leave_s > 0
        self.record = replace(self.record, leave_s=0.0)
        began = time.monotonic()
        while not resumes:
            await asyncio.sleep(self.config.duration_s)
            now, beats = time.monotonic(), int(SETTLE_S / self.config.retry_s)
            if now - began >= SETTLE_S or not self.sight.established(beats, self._records.values(), now):
                return

    async def _beat(self, active: asyncio.Event) -> None:
        """Until *active* is cleared, or others went on without this node."""
        next_at, blind_at = time.monotonic(), 0.0
        while active.is_set():
            now = time.monotonic()
            blind = self.blind(now)
            if blind and not blind_at:
                blind_at = now
                self._before = {each.node: each.beat for each in self._records.values()}
                self._rt.log.warning("blind: keeps what it holds, takes nothing")
            try:
                async with asyncio.timeout(BEAT_S):
                    await self.say(self.record)
            except (BusError, TimeoutError):
                await asyncio.sleep(self.config.retry_s)
                continue
            if blind_at and not self.blind(time.monotonic()):
                away_s, blind_at = time.monotonic() - blind_at, 0.0
                self._rt.log.warning("sees again", after_s=round(away_s, 2))
                self.moved()
                if self._left_behind(away_s):
                    return
            next_at = max(next_at + self.config.retry_s, time.monotonic() - self.config.retry_s)
            self._wakes.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, next_at - time.monotonic())):
                    await self._wakes.wait()

    def _left_behind(self, away_s: float) -> bool:
        """Whether others beat while this node saw nothing, for long enough to go on without it."""
        if away_s <= self.config.duration_s or (away_s <= AWAY_S and not self.silenced()):
            return False
        beats = min(away_s, 2 * SETTLE_S) / self.config.retry_s / 2
        return any(
            each.beat - self._before.get(each.node, each.beat) > max(2.0, beats)
            for each in self._records.values()
            if each.node != self.record.node
        )


def own_record(records: Table[Announcer], node: str, mac: str, devices: tuple[str, ...]) -> Announcer:
    """The record that this node has, with what is true of its device now."""
    before = records.get(token(node)) or Announcer(node=node)
    return replace(before, mac=mac, devices=devices)
